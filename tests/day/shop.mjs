// A small web shop: its users' side of a Customer.io integration, with customerio-node.
//
//   STORY=planted PORT=3000 CIO_PROXY_URL=http://127.0.0.1:8080 node shop.mjs
//
// Each feature is written twice: as it goes wrong (`planted`), and as it should be (`corrected`).
import { createRequire } from 'node:module';

const require = createRequire(new URL('../sdks/node/package.json', import.meta.url));
const express = require('express');
const { APIClient, PipelinesClient, TrackClient, verifyRequestSignature } = require('customerio-node');

const { STORY, PORT, CIO_PROXY_URL, CIO_SITE_ID, CIO_TRACK_KEY, CIO_APP_KEY, CIO_PIPELINES_KEY, CIO_SIGNING_KEY } =
  process.env;
const track = new TrackClient(CIO_SITE_ID, CIO_TRACK_KEY, { url: `${CIO_PROXY_URL}/api/v1` });
const pipelines = new PipelinesClient(CIO_PIPELINES_KEY, { url: `${CIO_PROXY_URL}/v1` });
const api = new APIClient(CIO_APP_KEY, { url: `${CIO_PROXY_URL}/v1` });

const told = (planted, corrected) => (STORY === 'planted' ? planted : corrected);
const now = () => Math.floor(Date.now() / 1000);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
/** Nobody waits for Customer.io: what goes wrong there is logged. */
const later = (promise) => promise.catch((error) => console.error('customer.io:', error.message));

const app = express();
app.use('/hooks', express.raw({ type: '*/*' }));
app.use(express.json(), express.urlencoded());
app.use((request, response, next) => {
  request.visitor = /visitor=([^;]+)/.exec(request.headers.cookie ?? '')?.[1];
  next();
});

// What visitors look at. The name of an event is a kind of event, and the product is a value of it.
const viewed = told(
  (visitor, product) => track.trackAnonymous(visitor, { name: `viewed_product_${product}` }),
  (visitor, product) => track.trackAnonymous(visitor, { name: 'product_viewed', data: { product_id: product } }),
);
app.get('/products/:product', (request, response) => {
  later(viewed(request.visitor, request.params.product));
  response.json({ product: request.params.product, price: 12.5 });
});

// Who signs up has looked around before: the visitor's id joins both.
const signedUp = told(
  (user) => track.identify(user.id, { email: user.email, created_at: now(), mails_per_week: 2 }),
  (user, visitor) =>
    track.identify(user.id, { email: user.email, created_at: now(), mails_per_week: 2, anonymous_id: visitor }),
);
app.post('/signup', (request, response) => {
  later(signedUp(request.body, request.visitor).then(() => track.track(request.body.id, { name: 'signed_up' })));
  response.status(201).json({ id: request.body.id });
});

// Signed-in users read the blog; pages go through Pipelines.
app.get('/blog/:post', (request, response) => {
  const url = `https://shop.example.com/blog/${request.params.post}`;
  later(pipelines.page({ userId: request.query.user, name: 'Blog', properties: { url } }));
  response.send('<h1>Our week</h1>');
});

// A gift makes a user of whoever gets it: when it is given, and not when they open it.
const given = told(
  ({ id }) => track.track(id, { name: 'gift_received', data: { product_id: 'lamp' } }),
  async ({ id, email }) => {
    await track.identify(id, { email, created_at: now() });
    await track.track(id, { name: 'gift_received', data: { product_id: 'lamp' } });
  },
);
const opened = told(
  ({ id, email }) => track.identify(id, { email, created_at: now(), has_opened_gift: true }),
  ({ id }) => track.identify(id, { has_opened_gift: true }),
);
app.post('/gifts', (request, response) => {
  later(given(request.body));
  response.status(201).json({ gift: request.body.id });
});
app.post('/gifts/opened', (request, response) => {
  later(opened(request.body));
  response.json({ gift: request.body.id });
});

// Guests give an address for their receipt.
const guest = told(
  ({ id, name }) => track.identify(id, { first_name: name, created_at: now() }),
  ({ id, name, email }) => track.identify(id, { first_name: name, created_at: now(), email }),
);
app.post('/guests', (request, response) => {
  later(guest(request.body));
  response.status(201).json({ guest: request.body.id });
});

// A form of HTML: all its values are texts.
const settings = told(
  ({ user, mails_per_week }) => track.identify(user, { mails_per_week }),
  ({ user, mails_per_week }) => track.identify(user, { mails_per_week: Number(mails_per_week) }),
);
app.post('/settings', (request, response) => {
  later(settings(request.body));
  response.redirect(303, '/products/812');
});

// JavaScript counts milliseconds, and Customer.io seconds.
const trial = told(
  (user) => track.track(user, { name: 'trial_started', timestamp: Date.now() }),
  (user) => track.track(user, { name: 'trial_started', timestamp: now() }),
);
app.post('/trials', (request, response) => {
  later(trial(request.body.user));
  response.status(201).json({ days: 14 });
});

// Users edit their profile.
const edited = told('user_updated', 'address_changed');
app.post('/profile', (request, response) => {
  const { user, city } = request.body;
  later(track.identify(user, { city }).then(() => track.track(user, { name: edited })));
  response.json({ city });
});

// A checkout must not take longer, or fail, because of what is told of it.
const receipt = () => pause(15);
const ordered = ({ user, order }) => track.track(user, { name: 'order_placed', data: { order_id: order, total: 12.5 } });
app.post(
  '/checkout',
  told(
    async (request, response) => {
      await ordered(request.body);
      await receipt();
      response.status(201).json({ order: request.body.order });
    },
    async (request, response) => {
      later(ordered(request.body));
      await receipt();
      response.status(201).json({ order: request.body.order });
    },
  ),
);
app.post('/refunds', (request, response) => {
  later(track.track(request.body.user, { name: 'order_refunded', data: { order_id: request.body.order } }));
  response.json({ refunded: request.body.order });
});

// The film on the front page: the page says where to tell that somebody saw it.
const basic = Buffer.from(`${CIO_SITE_ID}:${CIO_TRACK_KEY}`).toString('base64');
const tell = told(
  (user) => ({ url: `${CIO_PROXY_URL}/api/v1/customers/${user}/events`, authorization: `Basic ${basic}` }),
  (user) => ({ url: `/watched?user=${user}` }),
);
app.get('/film', (request, response) => {
  response.send(`<video src="/film.mp4"></video><script>const tell = ${JSON.stringify(tell(request.query.user))};</script>`);
});
app.post('/watched', (request, response) => {
  later(track.track(request.query.user, request.body));
  response.status(204).end();
});

// The newsletter is written here, and sent by Customer.io.
const footer = told('', '<p><a href="{% unsubscribe_url %}">Unsubscribe</a></p>');
app.post('/newsletters', (request, response) => {
  const { subject, text } = request.body;
  const body = `<html><body><h1>${subject}</h1><p>${text}</p><a href="https://shop.example.com">Shop</a>${footer}</body></html>`;
  later(api.updateNewsletterContent(7, 2, { type: 'email', subject, body }));
  response.status(202).json({ subject });
});

// The night job: what the warehouse knows of each customer.
const customers = Array.from({ length: 1400 }, (_, n) => ({
  id: `c-${n}`,
  attributes: { email: `c${n}@customers.example.com`, created_at: 1_600_000_000 + n, orders: n % 9 },
}));
const slices = (size) => Array.from({ length: customers.length / size }, (_, n) => customers.slice(n * size, (n + 1) * size));
const sync = told(
  async () => {
    const sent = [];
    for (const some of slices(40)) {
      sent.push(...some.map(({ id, attributes }) => track.identify(id, attributes)));
      await pause(230);
    }
    await Promise.all(sent);
  },
  async () => {
    for (const some of slices(100)) {
      await track.batch(
        some.map(({ id, attributes }) => ({ type: 'person', action: 'identify', identifiers: { id }, attributes })),
      );
    }
  },
);
let synced = false;
app.post('/night', (request, response) => {
  later(sync().then(() => (synced = true)));
  response.status(202).end();
});
app.get('/night', (request, response) => response.json(synced));

// Who says that our mail is spam gets none any more.
const complained = told(
  async (person) => console.error('complaint of', person.id),
  (person) => track.identify(person.id, { unsubscribed: true }),
);
app.post('/hooks/customerio', (request, response) => {
  const { 'x-cio-timestamp': timestamp, 'x-cio-signature': signature } = request.headers;
  if (!verifyRequestSignature({ signingSecret: CIO_SIGNING_KEY, timestamp, signature, body: request.body.toString() })) {
    return response.status(401).end();
  }
  const { metric, data } = JSON.parse(request.body);
  if (metric === 'spammed') later(complained(data.identifiers));
  response.status(200).end();
});

app.listen(Number(PORT), '127.0.0.1', () => console.log('ready'));
