// The directory RPC (docs/spec/mesh.md §4): one frame there, one frame back.

import { encode } from 'cborg'
import { fromCbor, hex, unhex } from './records.js'

export const protocol = (network) => `/homehost/${network}/directory/1`

/** The name by which clients ask (docs/spec/mesh.md §10). */
export const QUERY_PROTOCOL = '/homehost/query/1'

/** Numbers of the operations. */
const OPERATIONS = { query: 1, get: 2, offer: 3, reconcile: 4, records: 5, chains: 6 }

/** Fields of a query, from 1. */
const QUERY = ['game', 'tags', 'region', 'language', 'version', 'flags', 'without_flags',
  'has_players', 'proved', 'text', 'sort', 'limit', 'all']

/** What a search asks for, as a map of those fields that are given. */
const queryMap = (query) => new Map(QUERY
  .map((name, at) => [at + 1, query[name]])
  .filter(([, value]) => value != null))

export function request ({
  operation, query = {}, cursor, ids = [], envelopes = [], set, message, records = [], roots = []
}) {
  const map = new Map([[1, OPERATIONS[operation] ?? operation]])
  const list = (key, values) => values.length > 0 && map.set(key, values.map(unhex))
  list(3, ids)
  list(4, envelopes)
  const wanted = queryMap(query)
  if (wanted.size > 0) map.set(5, wanted)
  if (cursor != null) map.set(6, unhex(cursor))
  if (set != null) map.set(7, set)
  if (message != null) map.set(8, unhex(message))
  list(9, records)
  list(10, roots)
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

/** Sends a frame, and reads what comes back until the other side closes. */
export async function exchange (connection, name, bytes) {
  const stream = await connection.newStream(name)
  stream.send(frame(bytes))
  await stream.close()
  const back = await readAll(stream)
  if (back.length < 4) throw new Error('refused')
  if (back.readUInt32BE() !== back.length - 4) throw new Error('not one frame')
  return back
}

/** Asks by a protocol, and reads the answer; a refusal is an error. */
export async function ask (connection, name, question) {
  const bytes = await exchange(connection, name, request(question))
  const answer = fromCbor(bytes.subarray(4))
  return {
    bytes: bytes.length,
    records: (answer.get(1) ?? []).map(([envelope, age]) => ({ envelope: hex(envelope), age })),
    cursor: answer.has(2) ? hex(answer.get(2)) : null,
    message: answer.has(3) ? hex(answer.get(3)) : null,
    network: answer.get(4) ?? null,
    matching: answer.get(5) ?? null,
    trouble: answer.get(6) ?? null
  }
}
