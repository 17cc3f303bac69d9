// The page of an agreement works without this file. It adds a button that prints, and on a narrow screen
// folds the table of contents, which would be a screen long.
for (const button of document.querySelectorAll("[data-print]")) {
  button.hidden = false;
  button.addEventListener("click", () => window.print());
}
if (matchMedia("(max-width: 60rem)").matches) {
  document.querySelector("[data-contents]")?.removeAttribute("open");
}
