// A shop whose one route tells Customer.io of each order: it awaits that, or it does not.
//
//   node shop.mjs awaits|sends CUSTOMERIO_URL
//
// Prints its port. A `traceparent` goes on with the call, as tracing libraries do it. GET /calls: how long each call took.
import http from 'node:http';
import { TrackClient } from 'customerio-node';
import { setTimeout as sleep } from 'node:timers/promises';

const [, , version, url] = process.argv;
const calls = [];

function tell(traceparent) {
  const headers = traceparent ? { traceparent } : {};
  const client = new TrackClient('f82ad78f695bd32f9d99', 'a13c95a0bc44d9f01e27', { url: `${url}/api/v1`, headers });
  const begun = performance.now();
  return client
    .track('cust-ada', { name: 'order_placed', data: { total: 12.5 } })
    .then(() => calls.push(Math.round(performance.now() - begun)))
    .catch((error) => console.error(String(error)));
}

const server = http.createServer(async (request, response) => {
  if (request.url === '/calls') {
    response.end(JSON.stringify(calls));
    return;
  }
  request.resume();
  await sleep(5 + 20 * Math.random()); // the order is stored
  const told = tell(request.headers.traceparent);
  if (version === 'awaits') await told;
  await sleep(5 + 20 * Math.random()); // the page is made
  response.end('{}');
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
