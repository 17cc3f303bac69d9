// Turns a link with data-download="ID" into a download of what the text area ID holds.
for (const link of document.querySelectorAll("a[data-download]")) {
  const text = document.getElementById(link.dataset.download).value;
  // The mark in front tells spreadsheets that it is UTF-8.
  link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" }));
}
