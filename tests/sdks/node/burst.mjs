// Identifies people and tracks an event of each, all at once, through one client; writes how many went well.
//
//   node burst.mjs http://127.0.0.1:8080 SITE_ID TRACK_KEY PREFIX PEOPLE
import { TrackClient } from 'customerio-node';
import { pause } from './session.mjs';

const [proxy, siteId, trackKey, prefix, people] = process.argv.slice(2);
const track = new TrackClient(siteId, trackKey, { url: `${proxy}/api/v1` });
const errors = [];
let slowest = 0;

async function call(make) {
  const began = Date.now();
  try {
    await make();
  } catch (error) {
    errors.push(String(error.message));
  }
  slowest = Math.max(slowest, Date.now() - began);
}

const ids = Array.from({ length: Number(people) }, (_, n) => `${prefix}-${n}`);
const calls = ids.map((id) => call(() => track.identify(id, { email: `${id}@example.com` })));
await pause(1); // so that they come in this order, on connections of their own; none of them is waited for
calls.push(...ids.map((id) => call(() => track.track(id, { name: 'order_completed', data: { order_id: id } }))));
await Promise.all(calls);
console.log(JSON.stringify({ calls: calls.length, errors, slowest }));
