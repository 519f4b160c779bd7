"use strict";
// What a page sends, and a place to play what it gets.

// A page that captures may see its own addresses; one that never does gives mDNS names instead of them
// (RFC 8828, mode 2).  So there are two sources: the fake devices, and media made by the page itself.

const constraints = {
  audio: { audio: true },
  video: { video: { width: 160, height: 120, frameRate: 10 } },
};

async function capturedTrack(kind) {
  const stream = await navigator.mediaDevices.getUserMedia(constraints[kind]);
  return stream.getTracks()[0];
}

function madeTrack(kind) {
  if (kind === "audio") {
    const context = new AudioContext();
    const tone = new OscillatorNode(context, { frequency: 330 });
    const end = new MediaStreamAudioDestinationNode(context);
    tone.connect(end);
    tone.start();
    return end.stream.getTracks()[0];
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [160, 120];
  const picture = canvas.getContext("2d");
  let count = 0;
  setInterval(() => {
    count += 1;
    picture.fillStyle = `hsl(${(count * 10) % 360} 80% 50%)`;
    picture.fillRect(0, 0, canvas.width, canvas.height);
  }, 100);
  return canvas.captureStream(10).getTracks()[0];
}

function play(track) {
  const element = document.createElement(track.kind);
  element.muted = true;
  element.autoplay = true;
  element.playsInline = true;
  element.srcObject = new MediaStream([track]);
  document.body.append(element);
  track.addEventListener("ended", () => element.remove());
}
