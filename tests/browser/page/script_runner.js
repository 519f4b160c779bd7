"use strict";
// Runs a script of calls on two peer connections in this page and notes, in order, what each of them tells.
// tests/browser/script_runner.py does the same with ours; event_order.py says what a script is made of.

class ScriptedPeer {
  constructor(name, log) {
    this.name = name;
    this.sent = null;
    this.other = null;
    this.isHolding = true;
    this.held = [];
    this.isFirstCandidate = true;
    this.log = (what) => log.push([name, what]);
    const pc = (this.pc = new RTCPeerConnection());
    for (const [event, member] of [
      ["signalingstatechange", "signalingState"],
      ["icegatheringstatechange", "iceGatheringState"],
      ["iceconnectionstatechange", "iceConnectionState"],
      ["connectionstatechange", "connectionState"],
    ]) {
      pc.addEventListener(event, () => this.log(`${event} ${pc[member]}`));
    }
    pc.onnegotiationneeded = () => this.log("negotiationneeded");
    pc.ontrack = ({ track }) => this.log(`track ${track.kind}`);
    pc.ondatachannel = ({ channel }) => {
      this.log("datachannel");
      this.watchChannel(channel);
    };
    pc.onicecandidate = ({ candidate }) => this.takeCandidate(candidate);
  }

  takeCandidate(candidate) {
    if (candidate === null || this.isFirstCandidate) this.log(`icecandidate ${candidate ? "first" : "null"}`);
    this.isFirstCandidate = candidate === null;
    if (candidate === null || candidate.candidate === "") return;
    this.held.push(candidate);
    this.flush();
  }

  flush() {
    if (this.isHolding) return;
    for (const candidate of this.held.splice(0)) {
      this.other.pc.addIceCandidate(candidate).catch((error) => this.log(`addIceCandidate rejected ${error.name}`));
    }
  }

  watchChannel(channel) {
    this.channel = channel;
    channel.onopen = () => this.log("channel open");
    channel.onclose = () => this.log("channel close");
  }

  async call(name, argument) {
    const { pc } = this;
    switch (name) {
      case "addTrack":
        pc.addTrack(madeTrack(argument), new MediaStream());
        return;
      case "addTransceiver":
        pc.addTransceiver(argument);
        return;
      case "removeTrack":
        pc.removeTrack(pc.getSenders().filter((sender) => sender.track).at(-1));
        return;
      case "stop":
        pc.getTransceivers().at(-1).stop();
        return;
      case "createDataChannel":
        this.watchChannel(pc.createDataChannel(argument));
        return;
      case "restartIce":
        pc.restartIce();
        return;
      case "hold":
        this.isHolding = true;
        return;
      case "deliver":
        this.isHolding = false;
        this.flush();
        return;
      case "setLocalDescription":
        await this.settle(name, argument ? pc.setLocalDescription({ type: argument }) : pc.setLocalDescription());
        this.sent = pc.localDescription?.toJSON();
        return;
      case "setRemoteDescription":
        await this.settle(name, pc.setRemoteDescription(argument ? { type: argument } : this.other.sent));
        return;
      default:
        throw new Error(`a script has no ${name}`);
    }
  }

  async settle(name, promise) {
    try {
      await promise;
      this.log(`${name} resolved in ${this.pc.signalingState}`);
    } catch (error) {
      this.log(`${name} rejected ${error.name}`);
    }
  }

  is(condition, argument) {
    const { pc, channel } = this;
    switch (condition) {
      case "connected":
        return pc.connectionState === "connected" && pc.iceGatheringState === "complete" && channel?.readyState === "open";
      case "gathered":
        return pc.iceGatheringState === "complete";
      default:
        throw new Error(`a script knows no condition ${condition} ${argument}`);
    }
  }
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// Each step is a list of calls that are made one after the other without waiting in between.
async function runScript(script) {
  const log = [];
  const peers = { a: new ScriptedPeer("a", log), b: new ScriptedPeer("b", log) };
  [peers.a.other, peers.b.other] = [peers.b, peers.a];
  const seen = (name, what) => log.filter(([who, that]) => who === name && that === what).length;
  const deadline = performance.now() + 15_000;
  const patience = async () => {
    await pause(5);
    if (performance.now() > deadline) throw new Error(`the script hangs after ${JSON.stringify(log)}`);
  };
  for (const step of script) {
    await Promise.all(
      step.map(async ([name, call, ...rest]) => {
        if (call === "until") {
          while (!peers[name].is(...rest)) await patience();
        } else if (call === "until-told") {
          while (seen(name, rest[0]) < rest[1]) await patience();
        } else {
          await peers[name].call(call, ...rest);
        }
      }),
    );
    await pause(0);
  }
  await pause(100);
  for (const peer of Object.values(peers)) peer.pc.close();
  return log;
}
