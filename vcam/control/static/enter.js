// Keeps the key that a one-time link brought, where pages of this address alone can read it, and opens the panel.
"use strict";

localStorage.setItem("vcam-key", document.querySelector("meta[name=key]").content);
location.replace("/");
