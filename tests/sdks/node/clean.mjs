// A clean integration: every method of the three clients, each used as Customer.io means it.
//
//   node clean.mjs http://127.0.0.1:8080
//
// The methods are read from the classes, so one that a new version adds fails here until it has a step.
import {
  APIClient,
  PipelinesClient,
  SendEmailRequest,
  SendInAppRequest,
  SendInboxMessageRequest,
  SendPushRequest,
  SendSMSRequest,
  SendWhatsAppRequest,
  TrackClient,
} from 'customerio-node';
import { connect, now, step, weekAgo } from './session.mjs';

const { track, pipelines, api } = connect(process.argv[2]);

const person = (name, more = {}) => ({ email: `${name}@example.com`, created_at: weekAgo(), plan: 'pro', ...more });
const ada = { id: 'cust-ada' };

// In the order of a session: people first, what they did next, who leaves last.
const trackSteps = {
  getAccountRegion: [() => track.getAccountRegion()],
  identify: [
    () => track.identify('cust-ada', person('ada', { first_name: 'Ada', logins: 3, trial: false })),
    () => track.identify('cust-bob', person('bob', { anonymous_id: 'anon-bob' })),
    () => track.identify('cust-cleo', person('cleo')),
    () => track.identify('cust-dan', person('dan')),
    () => track.identify('cust-dan-old', person('dan.old')),
    () => track.identify('eve@example.com', { created_at: weekAgo(), first_name: 'Zoë' }),
    () => track.identify('team/frank+1', person('frank')),
    () => track.identify('cust-ada', { plan: 'team', last_seen_at: now() }),
    () => track.identify('cust-bob', { unsubscribed: true }),
  ],
  track: [
    () => track.track('cust-ada', { name: 'order_completed', data: { order_id: 'A-1000042', total: 12.5 } }),
    () => track.track('cust-bob', { name: 'order_completed', data: { order_id: 'A-1000043', total: 20 }, timestamp: now() - 60 }),
    () => track.track('eve@example.com', { name: 'plan_upgraded', data: { plan: 'team', seats: 5 } }),
    () => track.track('team/frank+1', { name: 'report_viewed' }),
  ],
  trackAnonymous: [
    () => track.trackAnonymous('anon-bob', { name: 'pricing_viewed', data: { source: 'ad' } }),
    () => track.trackAnonymous('', { name: 'friend_invited', data: { recipient: 'grace@example.com' } }),
  ],
  trackPageView: [() => track.trackPageView('cust-ada', '/pricing')],
  trackPush: [
    () => track.trackPush({ delivery_id: 'dgOq6QUAAZd4', device_id: 'fcm-token-ada', event: 'opened', timestamp: now() }),
  ],
  addDevice: [
    () => track.addDevice('cust-ada', 'fcm-token-ada', 'android', { last_used: now(), app_version: '4.2.0' }),
    () => track.addDevice('cust-bob', 'apns-token-bob', 'ios'),
  ],
  deleteDevice: [() => track.deleteDevice('cust-bob', 'apns-token-bob')],
  batch: [
    () =>
      track.batch([
        { type: 'person', action: 'identify', identifiers: { id: 'cust-hal' }, attributes: person('hal') },
        { type: 'person', action: 'event', identifiers: { id: 'cust-hal' }, name: 'order_completed', attributes: { total: 7 } },
        { type: 'person', action: 'page', identifiers: { id: 'cust-hal' }, name: '/docs', timestamp: now() },
        {
          type: 'person',
          action: 'add_device',
          identifiers: { id: 'cust-hal' },
          device: { token: 'fcm-token-hal', platform: 'android', last_used: now() },
        },
      ]),
  ],
  entity: [
    () =>
      track.entity({
        type: 'object',
        action: 'identify',
        identifiers: { object_type_id: '1', object_id: 'acme' },
        attributes: { name: 'Acme', seats: 40 },
        cio_relationships: [{ identifiers: ada }],
      }),
    () => track.entity({ type: 'person', action: 'event', identifiers: ada, name: 'report_viewed', attributes: { pages: 3 } }),
  ],
  addCustomersToSegment: [() => track.addCustomersToSegment(7, ['cust-ada', 'cust-bob'])],
  removeCustomersFromSegment: [() => track.removeCustomersFromSegment(7, ['cust-bob'], 'id')],
  submitForm: [() => track.submitForm('newsletter', { email: 'ada@example.com', topic: 'news' })],
  reportMetric: [() => track.reportMetric({ delivery_id: 'dgOq6QUAAZd4', metric: 'opened', timestamp: now() })],
  unsubscribe: [() => track.unsubscribe('dgOq6QUAAZd4')],
  mergeCustomers: [() => track.mergeCustomers('id', 'cust-dan', 'id', 'cust-dan-old')],
  suppress: [() => track.suppress('cust-cleo')],
  unsuppress: [() => track.unsuppress('cust-cleo')],
  destroy: [() => track.destroy('cust-hal')],
};

const traits = (name) => ({ email: `${name}@example.com`, createdAt: new Date(weekAgo() * 1000).toISOString() });

const pipelinesSteps = {
  identify: [
    () => pipelines.identify({ userId: 'cust-ada', anonymousId: 'anon-ada', traits: traits('ada') }),
    () => pipelines.identify({ userId: 'cust-ivy', traits: traits('ivy') }),
  ],
  track: [
    () => pipelines.track({ userId: 'cust-ada', event: 'report_viewed', properties: { pages: 4 } }),
    () => pipelines.track({ userId: 'cust-ivy', event: 'Order Refunded', properties: { total: 12.5 } }),
    () => pipelines.track({ anonymousId: 'anon-ada', event: 'pricing_viewed' }),
  ],
  page: [() => pipelines.page({ userId: 'cust-ada', name: 'Pricing', properties: { url: 'https://shop.example.com/pricing' } })],
  screen: [() => pipelines.screen({ userId: 'cust-ivy', name: 'Home' })],
  group: [() => pipelines.group({ userId: 'cust-ada', groupId: 'acme', traits: { name: 'Acme', seats: 40 } })],
  alias: [() => pipelines.alias({ previousId: 'anon-ada', userId: 'cust-ada' })],
  batch: [
    () =>
      pipelines.batch([
        { type: 'identify', userId: 'cust-jon', traits: traits('jon') },
        { type: 'track', userId: 'cust-jon', event: 'report_viewed', properties: { pages: 1 } },
        { type: 'page', userId: 'cust-jon', name: 'Docs' },
      ]),
  ],
};

const to = { to: 'ada@example.com', identifiers: ada };
const letter = new SendEmailRequest({
  ...to,
  transactional_message_id: 3,
  message_data: { order_id: 'A-1000042' },
  send_at: now() + 3600,
});
letter.attach('invoice.txt', 'Thank you for your order.\n'.repeat(4000));

const apiSteps = {
  sendEmail: [
    () => api.sendEmail(new SendEmailRequest({ ...to, transactional_message_id: 'welcome' })),
    () => api.sendEmail(letter),
  ],
  sendPush: [() => api.sendPush(new SendPushRequest({ identifiers: ada, transactional_message_id: 4, title: 'Shipped' }))],
  sendSMS: [() => api.sendSMS(new SendSMSRequest({ identifiers: ada, transactional_message_id: 5 }))],
  sendWhatsApp: [() => api.sendWhatsApp(new SendWhatsAppRequest({ identifiers: ada, transactional_message_id: 6 }))],
  sendInboxMessage: [() => api.sendInboxMessage(new SendInboxMessageRequest({ identifiers: ada, transactional_message_id: 7 }))],
  sendInApp: [() => api.sendInApp(new SendInAppRequest({ identifiers: ada, transactional_message_id: 8 }))],
  sendNewsletter: [() => api.sendNewsletter(9)],
  triggerBroadcast: [
    () => api.triggerBroadcast(12, { headline: 'Spring' }, { segment: { id: 7 } }),
    () => api.triggerBroadcast(13, { headline: 'Spring' }, { ids: ['cust-ada'], id_ignore_missing: true }),
  ],
};

const internal = new Set(['constructor', 'envelope']); // `envelope` is private in the type declarations
const everyMethod = () => true;
const sends = (method) => /^send[A-Z]|^triggerBroadcast$/.test(method);

for (const [client, steps, wanted] of [
  [TrackClient, trackSteps, everyMethod],
  [PipelinesClient, pipelinesSteps, everyMethod],
  [APIClient, apiSteps, sends],
]) {
  for (const method of Object.getOwnPropertyNames(client.prototype)) {
    if (!internal.has(method) && wanted(method) && !(method in steps)) {
      await step(`${client.name}.${method}`, () => {
        throw new Error(`method ${method} has no step`);
      });
    }
  }
  for (const [method, calls] of Object.entries(steps)) {
    for (const call of calls) await step(`${client.name}.${method}`, call);
  }
}
