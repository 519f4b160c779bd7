"use strict";
// A browser's end of a call: perfect negotiation over the relay's WebSocket.

// Negotiates `pc` as in the "perfect negotiation" example of the WebRTC specification (section 10.7).
class Negotiation {
  constructor(pc, polite, send) {
    this.pc = pc;
    this.polite = polite;
    this.send = send;
    this.makingOffer = false;
    this.ignoreOffer = false;
    this.settingRemoteAnswer = false;
    this.handling = 0;
    this.counts = { offers: 0, answers: 0, collisions: 0, ignored: 0, rollbacks: 0 };
    pc.onnegotiationneeded = () => this.offer();
    pc.onicecandidate = ({ candidate }) => send({ candidate: candidate && candidate.toJSON() });
  }

  async offer() {
    try {
      this.makingOffer = true;
      await this.pc.setLocalDescription();
      this.counts.offers += 1;
      this.send({ description: this.pc.localDescription });
    } catch (error) {
      problem("offer", error);
    } finally {
      this.makingOffer = false;
    }
  }

  async receive({ description, candidate }) {
    this.handling += 1;
    try {
      if (description) {
        await this.receiveDescription(description);
      } else {
        await this.receiveCandidate(candidate);
      }
    } catch (error) {
      problem(description ? description.type : `candidate ${JSON.stringify(candidate)}`, error);
    } finally {
      this.handling -= 1;
    }
  }

  async receiveDescription(description) {
    const { pc } = this;
    const ready = !this.makingOffer && (pc.signalingState === "stable" || this.settingRemoteAnswer);
    const collision = description.type === "offer" && !ready;
    this.counts.collisions += collision ? 1 : 0;
    this.ignoreOffer = collision && !this.polite;
    if (this.ignoreOffer) {
      this.counts.ignored += 1;
      return;
    }
    this.counts.rollbacks += collision && pc.signalingState === "have-local-offer" ? 1 : 0;
    this.settingRemoteAnswer = description.type === "answer";
    await pc.setRemoteDescription(description);
    this.settingRemoteAnswer = false;
    if (description.type === "offer") {
      await pc.setLocalDescription();
      this.counts.answers += 1;
      this.send({ description: pc.localDescription });
    }
  }

  async receiveCandidate(candidate) {
    // Whether its failure matters is settled when it arrives: an answer may reset the flag meanwhile.
    const ignored = this.ignoreOffer;
    try {
      await this.pc.addIceCandidate(candidate);
    } catch (error) {
      if (!ignored) throw error;
    }
  }
}

// The page's peer: a WebSocket, a peer connection, what they said, and what the test can ask for.
class Peer {
  constructor(settings) {
    this.settings = settings;
    this.sent = 0;
    this.received = 0;
    this.refused = [];
    this.states = [];
    this.dtlsStates = [];
    this.candidates = [];
    this.data = [];
    this.channels = new Map();
    this.transports = new Set();
    this.concealed = 0;
    this.concealedBefore = new Map();
    this.stalled = 0;
    this.watchTheClock();
    const pc = (this.pc = new RTCPeerConnection(settings.configuration));
    this.negotiation = new Negotiation(pc, settings.polite, (content) => this.send(content));
    pc.addEventListener("icecandidate", ({ candidate }) => candidate && this.candidates.push(candidate.candidate));
    pc.addEventListener("connectionstatechange", () => this.states.push(pc.connectionState));
    pc.addEventListener("signalingstatechange", () => this.watchTransports());
    pc.addEventListener("track", ({ track }) => play(track));
    pc.addEventListener("datachannel", ({ channel }) => this.keep(channel));
  }

  open() {
    const { url, token, device } = this.settings;
    const socket = (this.socket = new WebSocket(`${url}?device=${device}`, ["calllab.v1", `bearer.${token}`]));
    socket.onmessage = ({ data }) => this.receive(JSON.parse(data));
    return new Promise((resolve, reject) => {
      socket.onopen = () => resolve(socket.protocol);
      socket.onerror = () => reject(new Error("the WebSocket did not open"));
      socket.onclose = ({ code, reason }) => problem("socket", new Error(`closed with ${code} ${reason}`));
    });
  }

  send({ description, candidate }) {
    const { recipientId, recipientDevice, callId } = this.settings;
    const content = description ? { type: `call-${description.type}`, sdp: description.sdp } : { type: "call-ice-candidate", candidate };
    this.sent += 1;
    this.socket.send(JSON.stringify({ ...content, recipientId, recipientDevice, callId }));
  }

  receive(message) {
    if (message.type === "error") {
      problem("relay", new Error(`${message.code} ${message.message}`));
      return;
    }
    this.received += 1;
    const type = message.type.replace("call-", "");
    if (type === "ice-candidate") {
      this.negotiation.receive({ candidate: message.candidate });
    } else {
      this.negotiation.receive({ description: { type, sdp: message.sdp } });
    }
  }

  close() {
    clearInterval(this.ticker);
    this.socket.onclose = null;
    this.socket.close();
    this.pc.close();
  }

  // Media and data

  async add(kind) {
    const track = this.settings.madeMedia ? madeTrack(kind) : await capturedTrack(kind);
    this.pc.addTrack(track, new MediaStream([track]));
  }

  live(kind) {
    const live = this.pc.getTransceivers().filter((t) => t.receiver.track.kind === kind && t.direction !== "stopped");
    return live.filter((t) => t.currentDirection !== "stopped");
  }

  remove(kind) {
    const sending = this.pc.getSenders().filter((sender) => sender.track?.kind === kind);
    if (sending.length) this.pc.removeTrack(sending.at(-1));
  }

  stop(kind) {
    this.live(kind).at(-1)?.stop();
  }

  // Puts a codec first, and offers: that alone would not.
  preferVideo(mimeType) {
    const { codecs } = RTCRtpReceiver.getCapabilities("video");
    const [transceiver] = this.live("video");
    transceiver.setCodecPreferences([...codecs].sort((a, b) => (b.mimeType === mimeType) - (a.mimeType === mimeType)));
    return this.negotiation.offer();
  }

  createChannel(label) {
    this.keep(this.pc.createDataChannel(label));
  }

  keep(channel) {
    this.channels.set(channel.label, channel);
    channel.binaryType = "arraybuffer";
    channel.onmessage = ({ data }) => this.data.push([channel.label, typeof data === "string" ? data : [...new Uint8Array(data)]]);
  }

  sendData(label, data) {
    this.channels.get(label).send(typeof data === "string" ? data : new Uint8Array(data));
  }

  // Observation

  // A rollback of the first offer leaves a transport behind that nothing uses.
  usedTransports() {
    const { pc } = this;
    const used = [...pc.getSenders(), ...pc.getReceivers()].map((end) => end.transport).concat(pc.sctp?.transport);
    return used.filter((one) => one);
  }

  watchTransports() {
    for (const transport of this.usedTransports().filter((one) => !this.transports.has(one))) {
      this.transports.add(transport);
      transport.addEventListener("statechange", () => this.dtlsStates.push(transport.state));
    }
  }

  async report() {
    const { pc, negotiation } = this;
    const report = {
      signaling: pc.signalingState,
      connection: pc.connectionState,
      ice: pc.iceConnectionState,
      isIdle: !negotiation.makingOffer && negotiation.handling === 0,
      sent: this.sent,
      received: this.received,
      counts: negotiation.counts,
      states: this.states,
      dtlsStates: this.dtlsStates,
      dtlsTransports: this.transports.size,
      candidates: this.candidates,
      data: this.data,
      channels: [...this.channels.values()].map((channel) => [channel.label, channel.readyState]),
      problems,
      transceivers: pc.getTransceivers().map((t) => ({
        mid: t.mid,
        kind: t.receiver.track.kind,
        direction: t.direction,
        currentDirection: t.currentDirection,
        hasTrack: t.sender.track !== null,
      })),
      ufrags: [pc.localDescription, pc.remoteDescription].map((d) => d && /a=ice-ufrag:(\S+)/.exec(d.sdp)?.[1]),
      inbound: [],
    };
    const statistics = await pc.getStats();
    for (const entry of statistics.values()) {
      if (entry.type === "inbound-rtp") {
        report.inbound.push({
          mid: entry.mid,
          kind: entry.kind,
          packets: entry.packetsReceived,
          frames: entry.framesDecoded ?? 0,
        });
        this.countConcealed(entry.ssrc, entry.concealedSamples ?? 0);
      } else if (entry.type === "transport") {
        report.dtlsState = entry.dtlsState;
        const pair = statistics.get(entry.selectedCandidatePairId);
        if (pair) {
          report.pair = [statistics.get(pair.localCandidateId), statistics.get(pair.remoteCandidateId)].map((c) => c?.candidateType);
        }
      }
    }
    report.fingerprints = await this.fingerprints();
    report.concealed_s = this.concealed / 48_000;
    report.stalled_s = this.stalled / 1000;
    return report;
  }

  // Counts the time for which this process did not run though it should have: a busy machine is nobody's silence.
  watchTheClock() {
    let due = performance.now() + 20;
    this.ticker = setInterval(() => {
      const now = performance.now();
      if (now - due > 30) this.stalled += now - due;
      due = now + 20;
    }, 20);
  }

  // The one video stream of a direction, with the name of its codec.
  async video(type) {
    const statistics = await this.pc.getStats();
    const [entry] = [...statistics.values()].filter((one) => one.type === type && one.kind === "video");
    return { ...entry, mimeType: statistics.get(entry.codecId)?.mimeType };
  }

  // From the objects: the statistics keep saying that there is no remote certificate if they were asked early.
  async fingerprints() {
    const { pc } = this;
    const local = /a=fingerprint:sha-256 (\S+)/.exec(pc.localDescription?.sdp ?? "")?.[1] ?? null;
    const [transport] = this.usedTransports();
    const [certificate] = transport?.getRemoteCertificates() ?? [];
    if (!certificate) return [local, null];
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", certificate));
    return [local, [...digest].map((byte) => byte.toString(16).padStart(2, "0").toUpperCase()).join(":")];
  }

  // Chromium begins to count anew after a rollback of its own, so what counts is the growth from look to look.
  countConcealed(ssrc, now) {
    const before = this.concealedBefore.get(ssrc) ?? 0;
    this.concealed += now >= before ? now - before : now;
    this.concealedBefore.set(ssrc, now);
  }
}

let peer = null;

async function openPeer(settings) {
  peer = new Peer(settings);
  return peer.open();
}
