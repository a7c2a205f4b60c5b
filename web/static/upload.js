// Makes the upload form nicer; without it the form works all the same.
"use strict";
(() => {
  const form = document.querySelector("form.upload");
  const gallery = document.getElementById("gallery");
  const camera = document.getElementById("camera");
  const chooser = document.getElementById("chooser");
  const preview = document.getElementById("preview");
  const tooLarge = document.getElementById("too-large");
  const chosen = document.getElementById("chosen");
  const send = document.getElementById("send");
  const maxBytes = Number(form.dataset.maxBytes);
  let shown = null;

  document.documentElement.classList.add("has-script");

  function show(input, other) {
    const file = input.files[0];
    if (shown) URL.revokeObjectURL(shown);
    shown = null;
    preview.hidden = true;
    tooLarge.hidden = true;
    send.disabled = false;
    chooser.classList.toggle("has-photo", Boolean(file));
    chosen.hidden = !file;
    chosen.textContent = file ? file.name : "";
    if (!file) return;
    other.value = "";
    if (file.size > maxBytes) {
      tooLarge.hidden = false;
      send.disabled = true;
      return;
    }
    shown = URL.createObjectURL(file);
    // A photo that the browser cannot draw (HEIC on many) is sent all the same.
    preview.onload = () => { preview.hidden = false; };
    preview.src = shown;
  }

  gallery.addEventListener("change", () => show(gallery, camera));
  camera.addEventListener("change", () => show(camera, gallery));
  chooser.addEventListener("dragover", (event) => { event.preventDefault(); chooser.classList.add("over"); });
  chooser.addEventListener("dragleave", () => chooser.classList.remove("over"));
  chooser.addEventListener("drop", (event) => {
    event.preventDefault();
    chooser.classList.remove("over");
    if (event.dataTransfer.files.length === 0) return;
    gallery.files = event.dataTransfer.files;
    show(gallery, camera);
  });
  form.addEventListener("submit", () => form.classList.add("is-busy"));
  // Coming back by the browser's button: the form is ready again.
  window.addEventListener("pageshow", () => form.classList.remove("is-busy"));
  // The browser may have kept the choice over a reload.
  if (gallery.files.length > 0) show(gallery, camera);
})();
