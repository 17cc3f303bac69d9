// Switches the notifications of this browser on. The page says everything: each of its elements with data-push-state
// is shown in that state alone, and a browser without this file is told that it cannot.
"use strict";

const box = document.querySelector("[data-push]");
const WORKER = "/push-worker.js";

const show = (state) => box.querySelectorAll("[data-push-state]").forEach((element) => {
  element.hidden = element.dataset.pushState !== state;
});

// Ours as long as the account knows it: somebody else may use the browser too.
const isKnown = (subscription) => JSON.parse(box.dataset.endpoints).includes(subscription.endpoint);

const stateOf = async () => {
  if (!("serviceWorker" in navigator && "PushManager" in window && "Notification" in window)) return "unsupported";
  if (Notification.permission === "denied") return "denied";
  const registration = await navigator.serviceWorker.getRegistration("/");
  const subscription = await registration?.pushManager.getSubscription();
  return subscription && isKnown(subscription) ? "on" : "off";
};

const switchOn = async () => {
  // Asked only now that somebody has pressed the button.
  if (await Notification.requestPermission() !== "granted") return stateOf();
  await navigator.serviceWorker.register(WORKER, { scope: "/" });
  const { pushManager } = await navigator.serviceWorker.ready;
  // One made with another key, or for another account, would be refused or be his.
  await (await pushManager.getSubscription())?.unsubscribe();
  const subscription = await pushManager.subscribe({
    userVisibleOnly: true,
    applicationServerKey: box.dataset.key,
  });
  const answer = await fetch(box.dataset.url, {
    method: "POST",
    credentials: "same-origin",
    headers: {
      "Content-Type": "application/json",
      "X-CSRFToken": box.querySelector("[name=csrfmiddlewaretoken]").value,
    },
    body: JSON.stringify(subscription),
  });
  if (!answer.ok) {
    await subscription.unsubscribe();
    return "error";
  }
  location.reload();
  return "on";
};

if (box) {
  box.querySelectorAll("[data-push-on]").forEach((button) => button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      show(await switchOn());
    } catch {
      show("error");
    }
    button.disabled = false;
  }));
  // A browser that is removed from the list is no longer subscribed either.
  document.querySelectorAll("form[data-push-off]").forEach((form) => form.addEventListener("submit", async () => {
    const registration = await navigator.serviceWorker?.getRegistration("/");
    const subscription = await registration?.pushManager.getSubscription();
    if (subscription?.endpoint === form.dataset.pushOff) await subscription.unsubscribe();
  }));
  stateOf().then(show, () => show("error"));
}
