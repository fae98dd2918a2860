// Commits one pitfall through customerio-node.
//
//   node bad.mjs http://127.0.0.1:8080 PITFALL
//
// Without a pitfall each line of input names one, as a JSON list; each is committed in a new workspace, and a line with
// the exit code ends its steps.
import { createInterface } from 'node:readline';
import { SendEmailRequest, TrackClient } from 'customerio-node';
import { connect, now, pause, step, weekAgo } from './session.mjs';

const [proxy, wanted] = process.argv.slice(2);
let { siteId, trackKey, appKey, track, pipelines, api } = connect(proxy);

const person = { email: 'grace@example.com', created_at: weekAgo() };
const other = { email: 'heidi@example.com', created_at: weekAgo() };
const known = () => step('identify', () => track.identify('cust-grace', person));
const event = (name, data = {}, rest = {}) => step('track', () => track.track('cust-grace', { name, data, ...rest }));

const pitfalls = {
  'wrong-api-key': () =>
    step('identify', () => new TrackClient(siteId, '', { url: `${proxy}/api/v1` }).identify('cust-grace', person)),
  'wrong-api-key: App key': () =>
    step('identify', () => new TrackClient(siteId, appKey, { url: `${proxy}/api/v1` }).identify('cust-grace', person)),
  'millisecond-timestamp': () =>
    step('identify', () => track.identify('cust-grace', { ...person, created_at: Date.now() })),
  'millisecond-timestamp: Pipelines': () =>
    step('identify', () =>
      pipelines.identify({ userId: 'cust-grace', traits: { email: person.email, created_at: Date.now() } }),
    ),
  'hardcoded-credentials': () =>
    step('identify', () => track.identify('cust-grace', { ...person, integration: `sa_live_${appKey}` })),
  'inconsistent-event-name': async () => {
    await known();
    await event('orderCompleted');
  },
  'dynamic-event-name': async () => {
    await known();
    await event('viewed_6f1c2b7e-93d4-4c5a-8f20-1b7d9e4a6c38');
  },
  'inconsistent-event-name: two spellings': async () => {
    await known();
    await event('order_completed');
    await event('order.completed');
  },
  'dynamic-event-name: one of many': async () => {
    await known();
    for (let product = 3001; product <= 3101; product += 10) await event(`viewed_product_${product}`);
  },
  'pii-in-name': () => step('identify', () => track.identify('cust-grace', { ...person, 'invited_by_ada@example.com': true })),
  'pii-in-name: event': async () => {
    await known();
    await event('invited_ada@example.com');
  },
  'malformed-body': () => step('identify', () => track.identify('cust-grace', [person])),
  'invalid-field': async () => {
    await known();
    await event('order_completed', 'A-1000042');
  },
  'reserved-name': () => step('identify', () => track.identify('cust-grace', { ...person, cio_id: 'd9c106000001' })),
  'unknown-endpoint': () =>
    step('identify', () => new TrackClient(siteId, trackKey, { url: `${proxy}/api/v1/api/v1` }).identify('cust-grace', person)),
  'placeholder-identifier': () => step('identify', () => track.identify(`${undefined}`, person)),
  'stale-timestamp': async () => {
    await known();
    await event('order_completed', {}, { timestamp: weekAgo() });
  },
  'invalid-event-id': async () => {
    await known();
    await event('order_completed', {}, { id: 'order-1000042' });
  },
  'invalid-event-id: of another event': async () => {
    await known();
    await event('order_completed', {}, { id: '01HB4HBDKTFWYZCK01DMRSWRFD' });
    await event('invoice_sent', {}, { id: '01HB4HBDKTFWYZCK01DMRSWRFD' });
  },
  'redirected-recipient': async () => {
    await known();
    await event('gift_sent', { recipient: 'ada@example.com' });
  },
  'sensitive-value': () => step('identify', () => track.identify('cust-grace', { ...person, card_number: '4111111111111111' })),
  'duplicate-event': async () => {
    await known();
    await event('order_completed', { order_id: 'A-1000042' });
    await event('order_completed', { order_id: 'A-1000042' });
  },
  'shared-anonymous-id': async () => {
    await step('identify', () => track.identify('cust-grace', { ...person, anonymous_id: 'anon-42' }));
    await step('identify', () => track.identify('cust-heidi', { ...other, anonymous_id: 'anon-42' }));
  },
  'oversized-payload': async () => {
    await known();
    await event('report_viewed', { text: 'lorem ipsum '.repeat(10_000) });
  },
  // The pause is longer than the grace that the rule gives to calls that race each other.
  'track-before-identify': async () => {
    await event('signed_up');
    await pause(2.5);
    await step('identify', () => track.identify('cust-grace', { ...person, created_at: now() }));
  },
  'changing-user-id': async () => {
    await known();
    for (let n = 0; n < 2; n += 1) await step('identify', () => track.identify('cust-grace-2', person));
  },
  'anonymous-id-not-merged': async () => {
    // Twice, since the client has two connections.
    for (let n = 0; n < 2; n += 1) await step('trackAnonymous', () => track.trackAnonymous('anon-grace', { name: 'pricing_viewed' }));
    for (let n = 0; n < 2; n += 1) await step('identify', () => track.identify('cust-grace', { email: person.email, created_at: now() }));
  },
  'split-identity': async () => {
    await step('identify', () => track.identify(person.email, { created_at: now() }));
    await step('identify', () => track.identify('cust-grace', { plan: 'pro' }));
    await known();
  },
  'inconsistent-attribute-type': async () => {
    for (let n = 0; n <= 20; n += 1) {
      const seats = n < 20 ? n : '20';
      await step('identify', () => track.identify(`cust-${n}`, { ...person, email: `p${n}@example.com`, seats }));
    }
  },
  'redundant-identify': async () => {
    for (let n = 0; n < 10; n += 1) await known();
  },
  'missing-unsubscribe-link': () =>
    step('sendEmail', () =>
      api.sendEmail(
        new SendEmailRequest({
          to: person.email,
          from: 'news@example.com',
          identifiers: { id: 'cust-grace' },
          subject: 'Our week',
          body: '<p>This was our week.</p>',
          send_to_unsubscribed: false,
        }),
      ),
    ),
  'trigger-on-every-update': async () => {
    for (let n = 0; n < 3; n += 1) {
      await step('identify', () => track.identify(`cust-${n}`, { ...person, email: `p${n}@example.com` }));
      await step('track', () => track.track(`cust-${n}`, { name: 'user_updated', data: {} }));
    }
  },
  'unplanned-event': async () => {
    await known();
    await event('order_shipped', { order_id: 'A-1000042', carrier: 'post' });
  },
  // Six a second for ten seconds, where five are configured.
  'no-rate-limiting': async () => {
    for (let n = 0; n < 60; n += 1) {
      await step('identify', () => track.identify(`cust-${n}`, { ...person, email: `p${n}@example.com` }));
      await pause(0.13);
    }
  },
  'no-rate-limiting: triggers': async () => {
    await step('trigger', () => api.triggerBroadcast(12, { headline: 'Hello' }, { emails: ['ada@example.com'] }));
    await step('trigger', () => api.triggerBroadcast(12, { headline: 'Hello' }, { emails: ['bob@example.com'] }));
  },
  'missing-email': () => step('identify', () => track.identify('cust-grace', { first_name: 'Grace', created_at: now() })),
};

async function commit(pitfall) {
  if (!(pitfall in pitfalls)) {
    console.error(`usage: node bad.mjs PROXY [PITFALL], one of: ${Object.keys(pitfalls).join(', ')}`);
    process.exit(2);
  }
  await pitfalls[pitfall]();
}

if (wanted !== undefined) {
  await commit(wanted);
} else {
  for await (const line of createInterface({ input: process.stdin })) {
    ({ siteId, trackKey, appKey, track, pipelines, api } = connect(proxy));
    await commit(JSON.parse(line)[0]);
    console.log(JSON.stringify({ ended: 0 }));
  }
}
