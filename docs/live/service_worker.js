/** Keeps a copy of all that the page loads, so that it works without a network after the first visit. */

importScripts("files.js"); // its version changes with any file, and then browsers install this worker anew

const PREFIX = `hf-geaau ${self.registration.scope} `;
const CACHE = PREFIX + self.FILES.version;
const SHELL = ["./", "live.css", "page.js", "worker.js", "geaau.js", "files.js"]; // loaded before this worker controls the page

self.addEventListener("install", (event) => {
  const requests = SHELL.map((name) => new Request(name, { cache: "reload" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(requests)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => event.waitUntil(takeOver()));

self.addEventListener("fetch", (event) => {
  const isOurs = event.request.method === "GET" && event.request.url.startsWith(self.registration.scope);
  if (isOurs) event.respondWith(answer(event.request));
});

async function takeOver() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith(PREFIX) && name !== CACHE).map((name) => caches.delete(name)));
  await self.clients.claim();
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request.mode === "navigate" ? "./" : request, { ignoreSearch: true });
  if (kept) return kept;
  const fresh = await fetch(request);
  if (fresh.ok) await cache.put(request, fresh.clone());
  return fresh;
}
