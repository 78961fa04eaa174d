"use strict";
const state = document.getElementById("state");
const screen_ = document.getElementById("screen");
const address = new URL("screen" + location.search, location.href);
address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
const socket = new WebSocket(address);
socket.binaryType = "blob";
socket.onopen = () => { state.textContent = "waiting for a picture …"; };
socket.onmessage = ({ data }) => {
  const before = screen_.src;
  screen_.src = URL.createObjectURL(new Blob([data], { type: "image/jpeg" }));
  screen_.hidden = false;
  if (before) URL.revokeObjectURL(before);
  state.textContent = "live";
};
socket.onclose = ({ reason }) => { state.textContent = "ended" + (reason ? ": " + reason : ""); };
