// The grid of looks: pictures to click on, favourites first, with keys.
"use strict";

let looks = []; // as the camera has them
let favourites = []; // ids; the first one has the key 1
let looksOf = null; // the look for which the grid was last drawn
const thumbnails = new Map(); // id and revision -> address; null while it is asked for
const mine = new Map(); // id and revision -> address, drawn from the user's own picture; never kept on the disk
let onMine = false;

let askedLooks = 0; // an answer that a later question, or a star given meanwhile, has overtaken is not drawn

async function drawLooks() {
  const asked = ++askedLooks;
  const [{ profiles }, page] = await Promise.all([ask("/api/v1/profiles"), ask("/api/v1/page")]);
  if (asked !== askedLooks) return;
  looks = profiles;
  favourites = page.favourites.filter((id) => looks.some((one) => one.id === id));
  drawGrid();
}

function inOrder() {
  const starred = favourites.map((id) => looks.find((one) => one.id === id));
  return [...starred, ...looks.filter((one) => !favourites.includes(one.id))];
}

// Those that the keys 1 to 9 take: the favourites, or the first ones while there are none.
function keyed() {
  return favourites.length ? favourites : looks.slice(0, 9).map((one) => one.id);
}

function drawGrid() {
  const focused = document.activeElement?.dataset?.profile;
  const wanted = at("search").value.trim().toLowerCase();
  const found = inOrder().filter((one) => `${one.name} ${one.description} ${one.prompt}`.toLowerCase().includes(wanted));
  at("profiles").replaceChildren(...found.map(tile));
  at("none-found").hidden = found.length > 0 || !looks.length;
  const current = looks.find((one) => one.current);
  text("look-says", current ? current.description || current.prompt : "");
  pressed("star", current && favourites.includes(current.id));
  if (focused) tileOf(focused)?.focus();
  drawn();
}

function tileOf(id) {
  return at("profiles").querySelector(`button[data-profile="${CSS.escape(id)}"]`);
}

function tile(look) {
  const use = made("button", "", { type: "button", className: "use", title: look.description || look.prompt });
  use.dataset.profile = look.id;
  use.setAttribute("aria-pressed", String(look.current));
  const picture = made("span", [...look.name][0], { className: "thumb" });
  const address = (showsMine() ? mine : thumbnails).get(keyOf(look));
  if (address) picture.replaceChildren(made("img", "", { alt: "", src: address }));
  use.append(picture, made("span", look.name, { className: "name" }));
  const key = keyed().indexOf(look.id);
  if (key >= 0) use.append(made("kbd", String(key + 1)));
  if (favourites.includes(look.id)) {
    const star = made("span", "★", { className: "star" });
    star.setAttribute("aria-label", "favourite");
    star.setAttribute("role", "img");
    use.append(star);
  }
  use.addEventListener("click", () => useLook(look.id));
  return use;
}

function keyOf(look) {
  return `${look.id} ${look.revision}`;
}

async function useLook(id) {
  if (await send({ command: "use", profile: id })) at("prompt").value = status.prompt;
}

function markCurrent(id) {
  for (const one of looks) one.current = one.id === id;
  drawGrid();
  tileOf(id)?.scrollIntoView({ block: "nearest" });
}

// ------------------------------------------------------------------------------------------------------ their pictures

let drawing = Promise.resolve(); // one after the other: they are drawn by the engine's neighbour

function drawn() {
  for (const look of inOrder()) wantPicture(look, showsMine());
}

function showsMine() {
  return onMine && !covered;
}

function wantPicture(look, own) {
  const known = own ? mine : thumbnails;
  const key = keyOf(look);
  if (known.has(key)) return;
  known.set(key, null);
  drawing = drawing.then(async () => {
    if (!known.has(key)) return; // thrown away meanwhile, as by a panic
    const path = `/api/v1/profiles/${encodeURIComponent(look.id)}/thumbnail.jpg`;
    const address = await asAddress(await (own ? ask("/api/v1/try", { profile: look.id }) : ask(path)));
    if (!known.has(key)) return;
    known.set(key, address);
    if (own === showsMine()) tileOf(look.id)?.querySelector(".thumb").replaceChildren(made("img", "", { alt: "", src: address }));
  }).catch(() => known.delete(key)); // asked again when the grid is drawn next
}

at("mine").addEventListener("click", () => {
  onMine = !onMine;
  mine.clear(); // the user sits differently now
  pressed("mine", onMine);
  if (onMine) toast("Drawing the looks on your picture, one after the other. Only you see them.");
  drawGrid();
});

function dropOwnPictures() {
  drop();
  if (!onMine) return;
  onMine = false;
  mine.clear();
  pressed("mine", false);
  drawGrid();
}

// -------------------------------------------------------------------------------------------------- favourites, search

function star(id) {
  return doing(async () => {
    const wanted = favourites.includes(id) ? favourites.filter((one) => one !== id) : [...favourites, id];
    if (wanted.length > 9) throw new Error("There are nine keys: take another favourite away first.");
    ({ favourites } = await ask("/api/v1/page", { favourites: wanted }));
    await drawLooks();
  });
}

at("star").addEventListener("click", () => {
  const current = looks.find((one) => one.current); // the one that the button speaks of
  if (current) star(current.id);
});
at("search").addEventListener("input", drawGrid);
at("search").addEventListener("keydown", (event) => {
  if (event.key === "Enter") at("profiles").querySelector("button.use")?.click();
});
