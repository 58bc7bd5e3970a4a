// The directory RPC (docs/spec/mesh.md §4): one frame there, one frame back.

import { encode } from 'cborg'
import { fromCbor, hex, unhex } from './records.js'

export const protocol = (network) => `/homehost/${network}/directory/1`

/** Numbers of the operations. */
const OPERATIONS = { page: 1, get: 2, offer: 3 }

export function request ({ operation, after, ids = [], envelopes = [] }) {
  const map = new Map([[1, OPERATIONS[operation] ?? operation]])
  if (after != null) map.set(2, unhex(after))
  if (ids.length > 0) map.set(3, ids.map(unhex))
  if (envelopes.length > 0) map.set(4, envelopes.map(unhex))
  return encode(map)
}

export function frame (bytes) {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}

/** Everything until the other side closes. */
export async function readAll (stream) {
  const parts = []
  for await (const part of stream) parts.push(Buffer.from(part.subarray()))
  return Buffer.concat(parts)
}

/** Asks, and reads the answer; a refusal is an error. */
export async function ask (connection, network, question) {
  const stream = await connection.newStream(protocol(network))
  stream.send(frame(request(question)))
  await stream.close()
  const bytes = await readAll(stream)
  if (bytes.length < 4) throw new Error('refused')
  if (bytes.readUInt32BE() !== bytes.length - 4) throw new Error('not one frame')
  const answer = fromCbor(bytes.subarray(4))
  return {
    bytes: bytes.length,
    records: (answer.get(1) ?? []).map(([envelope, age]) => ({ envelope: hex(envelope), age })),
    next: answer.has(2) ? hex(answer.get(2)) : null
  }
}
