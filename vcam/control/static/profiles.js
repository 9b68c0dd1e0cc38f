// The grid of profiles, and the form that adds, changes, duplicates and deletes one.
"use strict";

let editing = null; // what the form was opened with

async function drawProfiles() {
  const { profiles } = await ask("/api/v1/profiles");
  const box = at("profiles");
  const focused = document.activeElement?.dataset?.profile;
  box.replaceChildren(...profiles.map(card));
  if (focused) box.querySelector(`button[data-profile="${CSS.escape(focused)}"]`)?.focus();
}

function card(profile, index) {
  const frame = document.createElement("div");
  frame.className = "card";
  const use = document.createElement("button");
  use.type = "button";
  use.className = "use";
  use.dataset.profile = profile.id;
  use.setAttribute("aria-pressed", String(profile.current));
  use.title = profile.description || profile.prompt;
  const picture = document.createElement("span");
  picture.className = "thumb";
  picture.textContent = [...profile.name][0];
  thumbnail(profile, picture);
  const name = document.createElement("span");
  name.className = "name";
  name.textContent = profile.name;
  use.append(picture, name);
  if (index < 9) {
    const key = document.createElement("kbd");
    key.textContent = String(index + 1);
    use.append(key);
  }
  use.addEventListener("click", () => useProfile(profile.id));
  const edit = document.createElement("button");
  edit.type = "button";
  edit.className = "small edit";
  edit.textContent = "Edit";
  edit.setAttribute("aria-label", `Edit ${profile.name}`);
  edit.addEventListener("click", () => openEditor(profile.id));
  frame.append(use, edit);
  return frame;
}

const thumbnails = new Map(); // profile and prompt -> address; null where there is none
let drawing = Promise.resolve(); // one after the other: they are drawn by the engine's neighbour

function thumbnail(profile, place) {
  const key = `${profile.id} ${profile.revision}`;
  const show = (address) => {
    if (!address) return;
    const image = document.createElement("img");
    image.alt = "";
    image.src = address;
    place.replaceChildren(image);
  };
  if (thumbnails.has(key)) {
    show(thumbnails.get(key));
    return;
  }
  thumbnails.set(key, null);
  drawing = drawing.then(async () => {
    const picture = await ask(`/api/v1/profiles/${encodeURIComponent(profile.id)}/thumbnail.jpg`);
    const address = `data:image/jpeg;base64,${base64(new Uint8Array(await picture.arrayBuffer()))}`;
    thumbnails.set(key, address);
    const now = at("profiles").querySelector(`button[data-profile="${CSS.escape(profile.id)}"] .thumb`);
    const image = document.createElement("img");
    image.alt = "";
    image.src = address;
    now?.replaceChildren(image);
  }).catch(() => thumbnails.delete(key)); // asked again when the grid is drawn next
}

function base64(bytes) {
  let text = "";
  for (let start = 0; start < bytes.length; start += 8192) {
    text += String.fromCharCode(...bytes.subarray(start, start + 8192));
  }
  return btoa(text);
}

async function useProfile(id) {
  if (await send({ command: "use", profile: id })) at("prompt").value = status.prompt;
}

function fill(id, data) {
  const look = data.look ?? {};
  at("e-id").value = id;
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
}

function numberOf(id) {
  return at(id).value === "" ? null : Number(at(id).value);
}

function formed() {
  const before = editing.profile;
  return {
    ...before,
    name: at("e-name").value,
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
        fusion_strength: numberOf("e-fusion"),
        similarity_threshold: numberOf("e-threshold"),
        interval: numberOf("e-interval"),
      },
    },
  };
}

function editorError(text) {
  at("editor-error").textContent = text;
  at("editor-error").hidden = !text;
}

function showEditor(title, id, data, yours) {
  at("editor-title").textContent = title;
  fill(id, data);
  at("e-id").readOnly = Boolean(id);
  at("editor-delete").hidden = !yours;
  at("editor-duplicate").hidden = !id;
  editorError("");
  if (!at("editor").open) at("editor").showModal();
  at(id ? "e-name" : "e-id").focus();
}

async function openEditor(id) {
  try {
    const found = await ask(`/api/v1/profiles/${encodeURIComponent(id)}`);
    editing = { id, profile: found.profile };
    showEditor(found.yours ? `Edit ${found.profile.name}` : `Edit ${found.profile.name} (a copy of your own is saved)`, id, found.profile, found.yours);
  } catch (error) {
    complain(error.message);
  }
}

function newProfile(profile, title) {
  editing = { id: "", profile };
  showEditor(title, "", profile, false);
}

async function change(method, id, body) {
  return ask(`/api/v1/profiles/${encodeURIComponent(id)}`, body, method);
}

at("new-profile").addEventListener("click", () => newProfile({ look: { prompt: at("prompt").value } }, "New profile"));
at("keep-look").addEventListener("click", async () => {
  const { look } = await ask("/api/v1/look");
  const { fusion_strength, similarity_threshold, interval, prompt, strength, detail, on_switch } = look;
  newProfile({ look: { prompt, strength, detail, on_switch, transition_ms: numberOf("blend"), bank: { fusion_strength, similarity_threshold, interval } } }, "Save this look");
});
at("editor-cancel").addEventListener("click", () => at("editor").close());
at("editor-duplicate").addEventListener("click", () => {
  const copy = formed();
  copy.name = `${copy.name} copy`;
  newProfile(copy, "Duplicate");
  at("e-id").value = `${editing.id || "profile"}`;
});
at("editor-delete").addEventListener("click", async () => {
  const button = at("editor-delete");
  if (button.dataset.sure !== "yes") {
    button.dataset.sure = "yes";
    button.textContent = "Delete for good?";
    return;
  }
  try {
    await change("DELETE", editing.id, {});
    at("editor").close();
    await drawProfiles();
  } catch (error) {
    editorError(error.message);
  }
});
at("editor").addEventListener("close", () => {
  at("editor-delete").dataset.sure = "";
  at("editor-delete").textContent = "Delete";
});
at("editor-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const wrong = [...at("editor-form").elements].find((field) => field.willValidate && !field.checkValidity());
  if (wrong) {
    editorError(`${wrong.labels[0]?.textContent ?? wrong.id}: ${wrong.validationMessage}`);
    wrong.focus();
    return;
  }
  try {
    await change("PUT", at("e-id").value, formed());
    at("editor").close();
    await drawProfiles();
  } catch (error) {
    editorError(error.message);
  }
});
