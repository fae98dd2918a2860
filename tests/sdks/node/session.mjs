// What the programs of this folder share: the three clients against one proxy, and one JSON line per step.
import { randomBytes } from 'node:crypto';
import { APIClient, PipelinesClient, TrackClient } from 'customerio-node';

const secret = (bytes) => randomBytes(bytes).toString('hex');

/** Clients of one new workspace, with keys of the shapes that Customer.io gives out. */
export function connect(proxy) {
  const [siteId, trackKey] = [secret(10), secret(10)];
  return {
    siteId,
    trackKey,
    appKey: secret(16),
    track: new TrackClient(siteId, trackKey, { url: `${proxy}/api/v1` }),
    pipelines: new PipelinesClient(secret(10), { url: `${proxy}/v1` }),
    api: new APIClient(secret(16), { url: `${proxy}/v1` }),
  };
}

/** Runs one step and writes how it went; a failure is reported, not thrown. */
export async function step(name, call) {
  let error;
  try {
    await call();
  } catch (caught) {
    error = String(caught.message);
  }
  console.log(JSON.stringify(error === undefined ? { step: name, ok: true } : { step: name, ok: false, error }));
}

export const now = () => Math.floor(Date.now() / 1000);
export const weekAgo = () => now() - 7 * 24 * 3600;
export const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
