// The DHT by hand (docs/spec/mesh.md §8): one Kademlia message, one answer, with
// none of the checks that js-libp2p makes of what it sends itself.

import { text, hex, unhex } from './records.js'
import { field, fields, lengthPrefixed, varint, whole } from './protobuf.js'

const PUT_VALUE = 0
const GET_VALUE = 1

/** A message of a type about a key, perhaps with a record. */
function message (type, key, value) {
  const record = value == null ? [] : [field(3, Buffer.concat([field(1, key), field(2, value)]))]
  return Buffer.concat([varint(1 << 3), varint(type), field(2, key), ...record])
}

async function exchange (connection, network, bytes) {
  const stream = await connection.newStream(`/homehost/${network}/kad/1.0.0`, {
    signal: AbortSignal.timeout(10_000), maxOutboundStreams: Infinity
  })
  stream.send(lengthPrefixed(bytes))
  // Some take more messages on one stream, and do not end it by themselves.
  let back = Buffer.alloc(0)
  for await (const part of stream) {
    back = Buffer.concat([back, part.subarray()])
    const [answer] = whole(back)
    if (answer == null) continue
    stream.close().catch(() => {})
    return fields(answer)
  }
  throw new Error('not answered')
}

/** What the other end of a connection keeps under a key; null when nothing. */
export async function held (connection, network, key) {
  const answer = await exchange(connection, network, message(GET_VALUE, text(key)))
  const record = answer.get(3)
  return record == null ? null : hex(fields(record).get(2))
}

/** Puts a value under a key, whatever they are. Says whether it was answered. */
export async function put (connection, network, { key, value }) {
  const answer = await exchange(connection, network, message(PUT_VALUE, text(key), unhex(value)))
  return answer.size > 0
}
