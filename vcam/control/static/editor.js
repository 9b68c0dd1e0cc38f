// The form that makes and changes a look; files in and out; and what takes it all back.
"use strict";

let editing = null; // what the form was opened with
let filled = ""; // what the form held then

function fill(data) {
  const look = data.look ?? {};
  at("e-name").value = data.name ?? "";
  at("e-description").value = data.description ?? "";
  at("e-prompt").value = look.prompt ?? "";
  at("e-strength").value = look.strength ?? 0.5;
  at("e-detail").value = look.detail ?? "";
  at("e-fusion").value = look.bank?.fusion_strength ?? "";
  at("e-threshold").value = look.bank?.similarity_threshold ?? "";
  at("e-interval").value = look.bank?.interval ?? "";
  at("e-transition").value = look.transition_ms ?? 400;
  at("e-switch").value = look.on_switch ?? "keep";
  at("e-badge").checked = Boolean(data.badge);
  text("e-strength-says", at("e-strength").value);
  filled = JSON.stringify(formed());
}

function numberOf(id) {
  return at(id).value === "" ? null : Number(at(id).value);
}

function formed() {
  const before = editing.profile;
  return {
    ...before,
    name: at("e-name").value.trim(),
    description: at("e-description").value,
    badge: at("e-badge").checked,
    look: {
      ...before.look,
      prompt: at("e-prompt").value,
      strength: numberOf("e-strength"),
      detail: numberOf("e-detail"),
      transition_ms: numberOf("e-transition"),
      on_switch: at("e-switch").value,
      bank: {
        ...before.look?.bank,
        fusion_strength: numberOf("e-fusion"),
        similarity_threshold: numberOf("e-threshold"),
        interval: numberOf("e-interval"),
      },
    },
  };
}

// A file's name for a look's: small letters, digits and -, and nobody else's.
function idFor(name) {
  const plain = name.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 50) || "look";
  const taken = new Set(looks.map((one) => one.id));
  let id = plain;
  for (let number = 2; taken.has(id); number += 1) id = `${plain}-${number}`;
  return id;
}

function editorError(words) {
  text("editor-error", callable(words));
  at("editor-error").hidden = !words;
}

function showFile() {
  const id = editing.id || idFor(at("e-name").value);
  text("e-file", at("e-name").value ? `Kept as ${id}.toml` : "");
}

function showEditor(title, id, data, yours) {
  editing = { id, profile: data, yours };
  text("editor-title", title);
  fill(data);
  showFile();
  at("editor-delete").hidden = !yours;
  at("editor-leave").hidden = true;
  editorError("");
  if (!at("editor").open) at("editor").showModal();
  at("e-name").focus();
  at("e-name").select();
}

function newLook(data, title) {
  showEditor(title, "", data, false);
}

async function found(id) {
  return ask(`/api/v1/profiles/${encodeURIComponent(id)}`);
}

function change(method, id, body) {
  noUndo();
  return ask(`/api/v1/profiles/${encodeURIComponent(id)}`, body, method);
}

// Returns what puts the look's file back to what it is now.
async function backTo(id) {
  const before = looks.some((one) => one.id === id) ? await found(id) : null;
  return async () => {
    if (before?.yours) await change("PUT", id, before.profile);
    else await change("DELETE", id, {});
    await drawLooks();
  };
}

function dirty() {
  return JSON.stringify(formed()) !== filled;
}

function shut() {
  filled = JSON.stringify(formed());
  at("editor").close();
}

function leave() {
  if (!dirty()) {
    shut();
    return;
  }
  at("editor-leave").hidden = false;
  at("editor-stay").focus();
}

at("new-profile").addEventListener("click", () => newLook({ look: { prompt: at("prompt").value } }, "New look"));
at("edit").addEventListener("click", () => doing(async () => {
  const { id, yours, profile } = await found(status.profile);
  showEditor(yours ? `Edit ${profile.name}` : `Edit ${profile.name} (yours is a copy)`, id, profile, yours);
}));
at("duplicate").addEventListener("click", () => doing(async () => {
  const { profile } = await found(status.profile);
  newLook({ ...profile, name: `${profile.name} copy` }, "Duplicate");
}));
at("keep-look").addEventListener("click", () => doing(async () => {
  const { look } = await ask("/api/v1/look");
  const { fusion_strength, similarity_threshold, interval, steady, refresh, prompt, strength, detail, on_switch, region, elsewhere } = look;
  newLook({ look: { prompt, strength, detail, on_switch, region, elsewhere, transition_ms: blend(), bank: { fusion_strength, similarity_threshold, interval, steady, refresh } } }, "Save this as a look");
}));
at("export").addEventListener("click", () => doing(async () => {
  const file = new Blob([await ask(`/api/v1/profiles/${encodeURIComponent(status.profile)}/file`)], { type: "application/toml" });
  const link = made("a", "", { href: URL.createObjectURL(file), download: `${status.profile}.toml` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}));
at("import").addEventListener("change", () => doing(async () => {
  const [file] = at("import").files;
  if (!file) return;
  const id = idFor(file.name.replace(/\.toml$/i, ""));
  const undo = await backTo(id);
  const toml = await file.text();
  at("import").value = "";
  noUndo();
  const { profile } = await ask(`/api/v1/profiles/${encodeURIComponent(id)}/file`, { toml }, "PUT");
  await drawLooks();
  toast(`${profile.name} is among your looks`, undo);
}));

at("e-name").addEventListener("input", showFile);
at("e-strength").addEventListener("input", () => text("e-strength-says", at("e-strength").value));
at("editor-cancel").addEventListener("click", leave);
// of a second Escape, the browser closes without asking "cancel": the key is taken before it comes there
at("editor").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  event.preventDefault();
  leave();
});
at("editor").addEventListener("cancel", (event) => {
  event.preventDefault();
  leave();
});
at("editor-stay").addEventListener("click", () => {
  at("editor-leave").hidden = true;
  at("e-name").focus();
});
at("editor-discard").addEventListener("click", shut);
at("editor-delete").addEventListener("click", async () => {
  const button = at("editor-delete");
  if (button.dataset.sure !== "yes") {
    button.dataset.sure = "yes";
    button.textContent = "Delete it?";
    return;
  }
  try {
    const undo = await backTo(editing.id);
    await change("DELETE", editing.id, {});
    shut();
    await drawLooks();
    toast(`${editing.profile.name} is deleted`, undo);
  } catch (error) {
    editorError(error.message);
  }
});
at("editor").addEventListener("close", () => {
  if (dirty()) { // closed by what cannot be prevented, as a phone's second "back"
    at("editor").showModal();
    leave();
    return;
  }
  at("editor-delete").dataset.sure = "";
  at("editor-delete").textContent = "Delete";
});
at("editor-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const wrong = [...at("editor-form").elements].find((field) => field.willValidate && !field.checkValidity());
  if (wrong) {
    wrong.closest("details")?.setAttribute("open", "");
    editorError(`${wrong.labels[0]?.textContent.trim() ?? wrong.id}: ${wrong.validationMessage}`);
    wrong.focus();
    return;
  }
  try {
    const data = formed();
    const id = editing.id || idFor(data.name);
    const undo = await backTo(id);
    await change("PUT", id, data);
    shut();
    await drawLooks();
    toast(`${data.name} is saved`, undo);
  } catch (error) {
    editorError(error.message);
  }
});
