// What no decent peer does. Streams and sockets that are held stay open until
// `release`.

import { randomBytes } from 'node:crypto'
import { connect, createServer } from 'node:net'
import { RPC } from '@libp2p/gossipsub/message'
import { connection, peer } from './commands.js'
import { exchange, frame, protocol, QUERY_PROTOCOL, request } from './directory.js'
import { forge } from './forge.js'
import { put } from './kad.js'
import { answerClients, claimRecords } from './liar.js'
import { messageId } from './mesh.js'
import { lengthPrefixed, whole } from './protobuf.js'
import { unhex } from './records.js'
import * as witness from './witness.js'

const MESHSUB = '/meshsub/1.2.0'
const NOTHING = { ihave: [], iwant: [], graft: [], prune: [], idontwant: [] }
const held = []

/** Host and port of a multiaddr such as `/ip4/127.0.0.1/tcp/4001/p2p/…`. */
function socketOf (address) {
  const [, , host, , port] = address.split('/')
  return { host, port: Number(port) }
}

/** Opens streams of a protocol, a few at a time, until the node closes. */
async function openMany (made, name, count, then) {
  const done = { opened: 0, refused: 0 }
  const one = async () => {
    try {
      const stream = await made.newStream(name, {
        signal: AbortSignal.timeout(5_000), maxOutboundStreams: Infinity
      })
      await then(stream)
      done.opened += 1
    } catch {
      done.refused += 1
    }
  }
  while (count > 0 && made.status === 'open') {
    const now = Math.min(count, 50)
    await Promise.all(Array.from({ length: now }, one))
    count -= now
  }
  return { ...done, connected: made.status === 'open' }
}

/** Sends as much as the other side takes; it may have closed. */
async function pour (stream, bytes) {
  for (let at = 0; at < bytes.length && stream.writeStatus === 'writable'; at += 64_000) {
    if (!stream.send(bytes.subarray(at, at + 64_000))) {
      await stream.onDrain({ signal: AbortSignal.timeout(2_000) })
    }
  }
}

/** A gossip stream of its own, to which frames are written by hand. */
async function gossip (name, frames) {
  const stream = await connection(name).newStream(MESHSUB)
  held.push(stream)
  let sent = 0
  try {
    for (const bytes of frames) {
      await pour(stream, bytes)
      sent += 1
    }
  } catch {
    // It closed this stream, or takes no more.
  }
  return { sent, of: frames.length, connected: connection(name).status === 'open' }
}

const rpc = (content) => lengthPrefixed(Buffer.from(RPC.encode({
  subscriptions: [], messages: [], ...content
})))

/** Frames of a gossip stream that another opened. */
async function * frames (stream) {
  let left = Buffer.alloc(0)
  for await (const part of stream) {
    left = Buffer.concat([left, part.subarray()])
    for (;;) {
      const [frame, rest] = whole(left)
      if (frame == null) break
      yield frame
      left = rest
    }
  }
}

export const hostile = (say) => ({
  forge,

  /** Takes gossip streams of others, as who writes frames by hand needs to. */
  async take_gossip ({ peer: name }) {
    const of = peer(name)
    of.longest = { frame: 0, ids: 0 }
    const take = async (stream) => {
      for await (const bytes of frames(stream)) {
        const { messages, control } = RPC.decode(bytes)
        of.longest.frame = Math.max(of.longest.frame, bytes.length)
        for (const { messageIDs } of control?.ihave ?? []) {
          of.longest.ids = Math.max(of.longest.ids, messageIDs.length)
        }
        const grafts = (control?.graft ?? []).map(({ topicID }) => ({ topicID, peers: [], backoff: 3600 }))
        if (grafts.length > 0 && of.lazy != null) {
          of.lazy.send(rpc({ control: { ...NOTHING, prune: grafts } }))
          say({ event: 'declined', peer: name })
        }
        for (const { topic, data } of messages) {
          say({ event: 'message', peer: name, topic, data: Buffer.from(data).toString('hex') })
        }
      }
    }
    for (const version of ['1.0.0', '1.1.0', '1.2.0']) {
      await peer(name).host.handle(`/meshsub/${version}`, (stream) => { take(stream).catch(console.error) })
    }
  },

  /** Subscribes, and declines to be sent more than the ids of messages. */
  async subscribe_lazily ({ peer: name, topic }) {
    const of = peer(name)
    of.lazy = await connection(name).newStream(MESHSUB)
    of.lazy.send(rpc({ subscriptions: [{ subscribe: true, topic: of.topics[topic] }] }))
  },

  /** The longest frame that came, and the most ids in one. */
  longest: ({ peer: name }) => peer(name).longest,

  /** Asks for a message by its id. */
  want ({ peer: name, topic, data }) {
    const id = messageId({ topic: peer(name).topics[topic], data: unhex(data) })
    return gossip(name, [rpc({
      control: { ...NOTHING, iwant: [{ messageIDs: [id] }] }
    })])
  },

  /** Streams on which nothing more is ever said. */
  half_open: ({ peer: name, protocol: of, count, data = '' }) =>
    openMany(connection(name), of, count, (stream) => {
      if (data !== '') stream.send(unhex(data))
      held.push(stream)
    }),

  /** Puts into the DHT, a few at a time and unchecked; how many were answered. */
  async put_raw ({ peer: name, puts }) {
    const { network } = peer(name)
    let answered = 0
    for (let at = 0; at < puts.length && connection(name).status === 'open'; at += 50) {
      const done = await Promise.allSettled(puts.slice(at, at + 50)
        .map((one) => put(connection(name), network, one)))
      answered += done.filter(({ value }) => value === true).length
    }
    return { answered, connected: connection(name).status === 'open' }
  },

  /** Asks by the name for peers, that for clients, or that for witnesses, in any bytes. */
  async ask_raw ({ peer: name, door, data }) {
    const names = { peers: protocol, clients: () => QUERY_PROTOCOL, witnesses: witness.protocol }
    const bytes = await exchange(connection(name), names[door](peer(name).network), unhex(data))
    return bytes.length
  },

  answer_clients: ({ peer: name, answers }) => answerClients(peer(name), answers),
  claim_records: ({ peer: name, count }) => claimRecords(peer(name), count),

  /** How often a liar was asked. */
  was_asked ({ peer: name }) {
    const { asked, claims, withheld } = peer(name)
    return { asked, claims, withheld }
  },

  /** Random bytes on a protocol, behind a length or not, ended or not. */
  garbage: ({ peer: name, protocol: of, count, bytes, framed, ended }) =>
    openMany(connection(name), of, count, async (stream) => {
      const noise = randomBytes(bytes)
      await pour(stream, framed ? lengthPrefixed(noise) : noise).catch(() => {})
      if (ended) await stream.close().catch(() => {})
      held.push(stream)
    }),

  /** A gossip frame that announces and sends so many bytes. */
  long_frame: ({ peer: name, bytes }) =>
    gossip(name, [lengthPrefixed(Buffer.alloc(bytes, 0x0a))]),

  /**
   * Messages in frames as long as they may be, without a pause: each has control
   * messages besides, as gossip does it. Not hostile, but written by hand.
   */
  full_frames ({ peer: name, topic, messages }) {
    const topicID = peer(name).topics[topic]
    const frameOf = (data, ids) => rpc({
      messages: [{ topic: topicID, data: unhex(data) }],
      control: {
        ...NOTHING,
        ihave: [{ topicID, messageIDs: Array.from({ length: ids }, () => randomBytes(20)) }]
      }
    })
    const frames = messages.map((data) => {
      // An id has 22 bytes on the wire.
      const room = 16 * 1024 - frameOf(data, 1).length
      return frameOf(data, Math.floor(room / 22))
    })
    return gossip(name, frames)
  },

  /** One gossip message with fields that unsigned messages do not have. */
  signed_message ({ peer: name, topic, data }) {
    const { host, topics } = peer(name)
    return gossip(name, [rpc({
      messages: [{
        topic: topics[topic],
        data: unhex(data),
        from: host.peerId.toMultihash().bytes,
        seqno: randomBytes(8)
      }]
    })])
  },

  /** Subscriptions to topics that do not exist, a frame's fill at a time. */
  subscriptions ({ peer: name, count }) {
    const frames = []
    for (let at = 0; at < count; at += 100) {
      frames.push(rpc({
        subscriptions: Array.from({ length: 100 }, (_, n) =>
          ({ subscribe: true, topic: `/homehost/1/flood/${randomBytes(12).toString('hex')}/${at + n}` }))
      }))
    }
    return gossip(name, frames)
  },

  /** In and out of a real topic, again and again. */
  flapping ({ peer: name, topic, count }) {
    const frames = Array.from({ length: count }, (_, n) =>
      rpc({ subscriptions: [{ subscribe: n % 2 === 0, topic: peer(name).topics[topic] }] }))
    return gossip(name, frames)
  },

  /** Control messages about messages that nobody ever saw. */
  control ({ peer: name, topic, count }) {
    const topicID = peer(name).topics[topic]
    const ids = () => Array.from({ length: 150 }, () => randomBytes(20))
    const frames = Array.from({ length: count }, () => rpc({
      control: {
        ihave: [{ topicID, messageIDs: ids() }],
        iwant: [{ messageIDs: ids() }],
        graft: [{ topicID }, { topicID: `${topicID}/${randomBytes(4).toString('hex')}` }],
        prune: [],
        idontwant: [{ messageIDs: ids() }]
      }
    }))
    return gossip(name, frames)
  },

  /** Sockets that speak something else, or nothing. */
  async sockets ({ address, count, bytes }) {
    const { host, port } = socketOf(address)
    const one = () => new Promise((resolve) => {
      const socket = connect({ host, port }, () => {
        if (bytes > 0) socket.write(randomBytes(bytes))
        held.push(socket)
        resolve(true)
      })
      socket.resume()
      socket.on('error', () => resolve(false))
    })
    const made = await Promise.all(Array.from({ length: count }, one))
    return made.filter(Boolean).length
  },

  /**
   * A way to a node on which what the node sends can be stalled. Returns its
   * address, which has no peer id.
   */
  async slow_way ({ address }) {
    const to = socketOf(address)
    const ways = []
    const server = createServer((near) => {
      const far = connect({ host: to.host, port: to.port })
      near.pipe(far)
      far.pipe(near)
      near.on('error', () => far.destroy())
      far.on('error', () => near.destroy())
      ways.push({ near, far })
    })
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
    slow.stall = () => ways.forEach(({ near, far }) => { far.unpipe(near); far.pause() })
    slow.flow = () => ways.forEach(({ near, far }) => far.pipe(near))
    return `/ip4/127.0.0.1/tcp/${server.address().port}`
  },

  stall: () => slow.stall(),
  flow: () => slow.flow(),

  /**
   * Asks by each of these peers and reads nothing, not even whether the protocol is
   * spoken: as fast as its budget allows, for some seconds.
   */
  async ask_unread ({ peers, seconds, ...question }) {
    const line = (text) => lengthPrefixed(Buffer.from(`${text}\n`))
    const done = { sent: 0, failed: 0 }
    const one = async (name) => {
      try {
        // js-libp2p would wait for the answer to each line.
        const stream = await connection(name).muxer.createStream({})
        held.push(stream)
        stream.pause()
        stream.send(Buffer.concat([
          line('/multistream/1.0.0'), line(protocol(peer(name).network)), frame(request(question))
        ]))
        stream.close().catch(() => {})
        done.sent += 1
      } catch {
        done.failed += 1
      }
    }
    const all = (count) => Promise.all(peers.flatMap((name) =>
      Array.from({ length: count }, () => one(name))))
    await all(18)
    for (let half = 0; half < 2 * seconds; half += 1) {
      await Promise.all([all(1), new Promise((resolve) => setTimeout(resolve, 500))])
    }
    return done
  },

  release () {
    for (const one of held.splice(0)) one.abort?.(new Error('released')) ?? one.destroy?.()
  }
})

const slow = {}
