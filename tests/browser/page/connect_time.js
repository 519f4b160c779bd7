"use strict";
// How long two peer connections in this page take from the first setLocalDescription to the first picture.

async function connectTime() {
  const [a, b] = [new RTCPeerConnection(), new RTCPeerConnection()];
  for (const kind of ["audio", "video"]) a.addTrack(madeTrack(kind), new MediaStream());
  const early = new Map([[a, []], [b, []]]);
  const carry = (from, to) => {
    from.onicecandidate = ({ candidate }) => {
      if (early.get(to)) early.get(to).push(candidate);
      else to.addIceCandidate(candidate);
    };
  };
  carry(a, b);
  carry(b, a);
  const open = (pc) => {
    const waiting = early.get(pc);
    early.set(pc, null);
    for (const candidate of waiting) pc.addIceCandidate(candidate);
  };
  const connected = Promise.all(
    [a, b].map((pc) => new Promise((resolve) => pc.addEventListener("connectionstatechange", () => pc.connectionState === "connected" && resolve()))),
  );
  const frame = new Promise((resolve) => {
    b.ontrack = async ({ track }) => {
      if (track.kind !== "video") return;
      const { value } = await new MediaStreamTrackProcessor({ track }).readable.getReader().read();
      value.close();
      resolve();
    };
  });
  const begin = performance.now();
  await a.setLocalDescription();
  await b.setRemoteDescription(a.localDescription);
  open(b);
  await b.setLocalDescription();
  await a.setRemoteDescription(b.localDescription);
  open(a);
  const [connectedAt, frameAt] = await Promise.all([connected.then(() => performance.now()), frame.then(() => performance.now())]);
  a.close();
  b.close();
  return [(connectedAt - begin) / 1000, (frameAt - begin) / 1000];
}
