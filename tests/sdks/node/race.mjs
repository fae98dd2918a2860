// Identifies people and tracks an event of each without waiting in between; writes why events were refused.
//
//   node race.mjs http://127.0.0.1:8080 SITE_ID TRACK_KEY PEOPLE
import { TrackClient } from 'customerio-node';

const [proxy, siteId, trackKey, people] = process.argv.slice(2);
const track = new TrackClient(siteId, trackKey, { url: `${proxy}/api/v1` });
const refused = [];

async function buys(id) {
  try {
    await track.track(id, { name: 'order_completed', data: { order_id: id } });
  } catch (error) {
    refused.push(error.message);
  }
}

for (let n = 0; n < Number(people); n += 1) {
  await Promise.all([track.identify(`p${n}`, { email: `p${n}@example.com` }), buys(`p${n}`)]);
}
const races = refused.length;
await buys('nobody');
console.log(JSON.stringify({ races, refused }));
