// Shows the shop's notifications, also while none of its pages is open. Served at /push-worker.js.
"use strict";

const SUBSCRIPTIONS = "/messages/contacts/browser/";
const INBOX = "/messages/";

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("push", (event) => {
  let message;
  try {
    message = event.data.json();
  } catch {
    return;
  }
  event.waitUntil(self.registration.showNotification(message.title, {
    body: message.body,
    lang: message.lang,
    // What has the same tag is replaced, and rings again.
    tag: message.tag,
    renotify: Boolean(message.tag),
    data: { url: message.url || INBOX },
  }));
});

// Opens the page that the message is about: in a tab that shows it, else in a new one.
self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  const url = new URL(event.notification.data.url, self.location.origin);
  if (url.origin !== self.location.origin) return;
  event.waitUntil((async () => {
    const windows = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
    const open = windows.find((each) => each.url === url.href);
    await (open ? open.focus() : self.clients.openWindow(url.href));
  })());
});

// The browser has given up a subscription: a new one takes its place, or the customer would hear nothing more.
self.addEventListener("pushsubscriptionchange", (event) => {
  event.waitUntil((async () => {
    const old = event.oldSubscription;
    if (!old) return;
    const answer = await fetch(SUBSCRIPTIONS, { credentials: "same-origin" });
    if (!answer.ok) return;
    const { key, token } = await answer.json();
    const subscription = event.newSubscription || await self.registration.pushManager.subscribe({
      userVisibleOnly: true,
      applicationServerKey: key,
    });
    await fetch(SUBSCRIPTIONS, {
      method: "POST",
      credentials: "same-origin",
      headers: { "Content-Type": "application/json", "X-CSRFToken": token },
      body: JSON.stringify({ ...subscription.toJSON(), old: old.endpoint }),
    });
  })());
});
