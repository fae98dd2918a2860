// Leads what Node sends to Customer.io to the proxy: by fetch and undici, and by its own https, none of which look at
// HTTPS_PROXY. All other hosts are left alone; so is everything in a process that was given NODE_OPTIONS alone.
"use strict";

const http = require("node:http");
const https = require("node:https");
const { syncBuiltinESMExports } = require("node:module");

const { CIO_PROXY_URL, CIO_PROXY_HOSTS } = process.env;
if (!CIO_PROXY_URL || !CIO_PROXY_HOSTS) return;

const proxy = new URL(CIO_PROXY_URL);
const hosts = new Set(CIO_PROXY_HOSTS.split(" "));
const isOurs = (url) => url.protocol === "https:" && hosts.has(url.hostname);

// The dispatcher that every undici shares, Node's own included; Node loads it when one of fetch's classes is asked for.
const shared = Symbol.for("undici.globalDispatcher.1");
void globalThis.Response;

function withHost(headers, host) {
  if (Array.isArray(headers)) return [...headers, "host", host];
  const entries = typeof headers?.[Symbol.iterator] === "function" ? Object.fromEntries(headers) : headers;
  return { ...entries, host };
}

function led(dispatcher) {
  const dispatch = (options, handler) => {
    const url = new URL(options.origin);
    if (!isOurs(url)) return dispatcher.dispatch(options, handler);
    return dispatcher.dispatch({ ...options, origin: proxy.origin, headers: withHost(options.headers, url.host) }, handler);
  };
  return new Proxy(dispatcher, {
    get(target, name) {
      if (name === "dispatch") return dispatch;
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

if (globalThis[shared]) globalThis[shared] = led(globalThis[shared]);

const { request } = https;

https.request = function (...args) {
  const callback = typeof args.at(-1) === "function" ? args.pop() : undefined;
  const url = typeof args[0] === "string" || args[0] instanceof URL ? new URL(args.shift()) : undefined;
  const options = { ...args[0] };
  const host = url?.hostname ?? options.hostname ?? options.host?.split(":")[0] ?? "localhost";
  if (!isOurs({ protocol: "https:", hostname: host }) || options.socketPath || options.createConnection) {
    return request.call(https, ...(url ? [url] : []), options, callback);
  }
  const { agent, host: _, port: __, auth = undefined, ...rest } = options;
  const path = options.path ?? (url ? url.pathname + url.search : "/");
  const headers = Array.isArray(rest.headers) ? [...rest.headers, "Host", host] : { Host: host, ...rest.headers };
  const basic = auth ?? (url?.username ? `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}` : undefined);
  return http.request(
    { ...rest, auth: basic, path, headers, protocol: "http:", hostname: proxy.hostname, port: proxy.port, agent: undefined },
    callback,
  );
};

https.get = function (...args) {
  const sent = https.request(...args);
  sent.end();
  return sent;
};

syncBuiltinESMExports();
