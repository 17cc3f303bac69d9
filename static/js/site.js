// The shop works without this file. It adds what HTML cannot say.
"use strict";

// The browser's time zone, so that times are shown in it before there is an account.
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
if (zone) {
  const secure = location.protocol === "https:" ? "; secure" : "";
  document.cookie = `time_zone=${zone}; path=/; max-age=31536000; samesite=lax${secure}`;
}

// A second click while the first is on its way does nothing. The button itself is disabled only after
// the browser has taken its name and value into the form.
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented) return;
  const form = event.target;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
  setTimeout(() => form.querySelectorAll("button:not([type=button])").forEach((button) => {
    button.disabled = true;
  }));
});

// "Back" may bring the page as it was left: open it again.
addEventListener("pageshow", () => {
  document.querySelectorAll("form[data-sent]").forEach((form) => {
    delete form.dataset.sent;
    form.querySelectorAll("button:disabled").forEach((button) => {
      button.disabled = false;
    });
  });
});

// Menus close like menus do; those that stand open inside another one stay.
const MENU = "details.menu[open]:not(.menu .menu)";
const closeMenus = (except) => document.querySelectorAll(MENU).forEach((menu) => {
  if (!menu.contains(except)) menu.open = false;
});
document.addEventListener("click", (event) => closeMenus(event.target));
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const open = document.querySelector(MENU);
  if (open?.contains(document.activeElement)) open.querySelector("summary").focus();
  closeMenus(null);
});
