"""The calllab service: accounts, WebSocket relay, TURN credentials and an embedded STUN/TURN server."""
