// What a decent peer does.

import { multiaddr } from '@multiformats/multiaddr'
import { createServer } from 'node:net'
import { ask, protocol, QUERY_PROTOCOL } from './directory.js'
import { held } from './kad.js'
import { join, topics } from './mesh.js'
import { hex, open, selectors, text, unhex, validators } from './records.js'
import { attest } from './witness.js'

const peers = new Map()

export function peer (name) {
  const found = peers.get(name)
  if (found == null) throw new Error(`no peer ${name} was started`)
  return found
}

/** The connection over which a peer talks: the last that it made. */
export function connection (name) {
  const { made } = peer(name)
  if (made == null) throw new Error(`${name} is connected to nobody`)
  return made
}

/** What a DHT query found, event by event. */
async function query (events) {
  const found = { peers: new Set(), values: [], errors: [] }
  for await (const event of events) {
    if (event.name === 'PEER_RESPONSE') event.closer.forEach(({ id }) => found.peers.add(`${id}`))
    if (event.name === 'FINAL_PEER') found.peers.add(`${event.peer.id}`)
    if (event.name === 'VALUE') found.values.push(hex(event.value))
    if (event.name === 'QUERY_ERROR') found.errors.push(event.error.message)
  }
  return { ...found, peers: [...found.peers] }
}

export const commands = (say) => ({
  async start ({ peer: name, ...settings }) {
    const host = await join(settings)
    peers.set(name, { host, network: settings.network, topics: topics(settings.network) })
    host.addEventListener('connection:close', ({ detail }) =>
      say({ event: 'left', peer: name, node: `${detail.remotePeer}` }))
    host.services.gossip?.addEventListener('gossipsub:message', ({ detail }) =>
      say({
        event: 'message',
        peer: name,
        from: `${detail.propagationSource}`,
        id: detail.msgId,
        topic: detail.msg.topic,
        data: hex(detail.msg.data)
      }))
    return { id: `${host.peerId}`, addresses: host.getMultiaddrs().map(String) }
  },

  /** Where others reach a peer. */
  address: ({ peer: name }) => `${peer(name).host.getMultiaddrs()[0]}`,

  async stop ({ peer: name }) {
    await peer(name).host.stop()
    peers.delete(name)
  },

  async dial ({ peer: name, address }) {
    const of = peer(name)
    of.made = await of.host.dial(multiaddr(address), { signal: AbortSignal.timeout(20_000) })
    return { node: `${of.made.remotePeer}`, encryption: of.made.encryption, muxer: of.made.multiplexer }
  },

  hang_up: ({ peer: name }) => connection(name).close(),

  is_connected: ({ peer: name }) => connection(name).status === 'open',

  async identify ({ peer: name }) {
    const said = await peer(name).host.services.identify.identify(connection(name))
    return {
      version: said.protocolVersion,
      agent: said.agentVersion,
      protocols: said.protocols,
      addresses: said.listenAddrs.map(String),
      observed: `${said.observedAddr}`
    }
  },

  ping: ({ peer: name }) =>
    peer(name).host.services.ping.ping(connection(name).remotePeer),

  /** `topic` is `list` or `pres`. */
  subscribe ({ peer: name, topic }) {
    const of = peer(name)
    of.host.services.gossip.subscribe(of.topics[topic])
  },

  subscribers ({ peer: name, topic }) {
    const of = peer(name)
    return of.host.services.gossip.getSubscribers(of.topics[topic]).map(String)
  },

  /** Publishes messages one after another, without a pause. */
  async publish ({ peer: name, topic, messages }) {
    const { host, topics } = peer(name)
    const sent = await Promise.all(messages.map((data) =>
      host.services.gossip.publish(topics[topic], unhex(data))))
    return Math.min(...sent.map(({ recipients }) => recipients.length))
  },

  async open ({ envelope }) {
    const record = await open(unhex(envelope))
    return {
      type: record.payloadType,
      payload: hex(record.payload),
      key: hex(record.key),
      network: record.network,
      root: hex(record.root),
      epoch: record.epoch,
      seq: record.seq,
      // Of a listing.
      name: record.body.get(4)
    }
  },

  ask ({ peer: name, ...question }) {
    return ask(connection(name), protocol(peer(name).network), question)
  },

  /** As a client, who need not know the network. */
  ask_as_client ({ peer: name, ...question }) {
    return ask(connection(name), QUERY_PROTOCOL, question)
  },

  /** Asks for a witness of a port. */
  attest: ({ peer: name, ...subject }) =>
    attest(connection(name), peer(name).network, subject),

  /** A TCP server that takes connections and says nothing; its port. */
  async listen () {
    const server = createServer((socket) => socket.on('error', () => {}).resume())
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
    return server.address().port
  },

  /** Asks the same many times at once; how many were answered. */
  async ask_many ({ peer: name, count, client = false, ...question }) {
    const by = client ? QUERY_PROTOCOL : protocol(peer(name).network)
    const asked = await Promise.allSettled(Array.from({ length: count }, () =>
      ask(connection(name), by, question)))
    const answered = asked.filter(({ status }) => status === 'fulfilled').length
    return { answered, refused: count - answered }
  },

  /** Whether a value may be under a key of the DHT. */
  async validate ({ key, value }) {
    const validator = validators[key.split('/')[1]]
    if (validator == null) throw new Error('no such namespace')
    await validator(text(key), unhex(value))
  },

  select: ({ key, values }) => selectors[key.split('/')[1]](text(key), values.map(unhex)),

  closest: ({ peer: name, key }) =>
    query(peer(name).host.services.dht.getClosestPeers(unhex(key))),

  /** What the other end of the connection keeps, past all checks. */
  held: ({ peer: name, key }) => held(connection(name), peer(name).network, key),

  put: ({ peer: name, key, value }) =>
    query(peer(name).host.services.dht.put(text(key), unhex(value))),

  get: ({ peer: name, key }) =>
    query(peer(name).host.services.dht.get(text(key)))
})
