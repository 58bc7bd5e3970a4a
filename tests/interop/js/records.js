// HomeHost's records as a stranger reads them, from docs/spec/records.md alone:
// libp2p opens the envelope, and what is in it is deterministic CBOR.
//
// The validators and selectors of DHT records are here too. What js-libp2p
// finds under a key counts only if its envelope is good and the key is that of
// the record, and of several the highest (key epoch, seq) stands.

import { RecordEnvelope } from '@libp2p/peer-record'
import { blake3 } from '@noble/hashes/blake3.js'
import { decode } from 'cborg'

export const DOMAIN = 'homehost-rec/1'

/** CBOR maps of HomeHost have numbers for keys. */
export const fromCbor = (bytes) => decode(bytes, { useMaps: true, strict: true })

export const text = (string) => new TextEncoder().encode(string)
export const hex = (bytes) => Buffer.from(bytes.subarray()).toString('hex')
export const unhex = (text) => Uint8Array.from(Buffer.from(text, 'hex'))

/** RFC 4648 without padding, in lower case. */
export function base32 (bytes) {
  let bits = ''
  for (const byte of bytes) bits += byte.toString(2).padStart(8, '0')
  return bits.match(/.{1,5}/g)
    .map((five) => 'abcdefghijklmnopqrstuvwxyz234567'[parseInt(five.padEnd(5, '0'), 2)])
    .join('')
}

export const derive = (context, bytes) =>
  blake3(bytes, { context: text(context) })

/** The root that is born with a key and the digest of the next one. */
export const rootOf = (key, next) => derive('homehost root 1',
  Uint8Array.from([0xa3, 1, 0, 2, 0x58, 32, ...key, 3, 0x58, 32, ...next]))

/** Header and body of a payload; nothing is checked. */
export function readPayload (payload) {
  const record = fromCbor(payload.subarray())
  const [, network, kind, root, epoch, device, seq, issued, ttl, next, body] =
    Array.from({ length: 11 }, (_, at) => record.get(at + 1))
  return { network, kind, root, epoch, device, seq, issued, ttl, next, body: fromCbor(body) }
}

/** Opens an envelope as libp2p does, and reads what is in it. */
export async function open (bytes) {
  const envelope = await RecordEnvelope.openAndCertify(bytes, DOMAIN)
  const payloadType = new TextDecoder().decode(envelope.payloadType.subarray())
  const record = readPayload(envelope.payload)
  // Records of later epochs and other devices need a key chain, which this
  // reader does not have.
  if (record.epoch === 0 && record.device === 0 &&
      hex(rootOf(envelope.publicKey.raw, record.next)) !== hex(record.root)) {
    throw new Error('signed by a key that is not the root\'s')
  }
  return { payloadType, payload: envelope.payload, key: envelope.publicKey.raw, ...record }
}

/** The id of the server that a listing is about. */
export const serverId = (record) => derive('homehost server 1',
  Uint8Array.from([...record.root, ...record.body.get(1)]))

/** Namespaces of the DHT: what kind is kept there, and under which name. */
const NAMESPACES = {
  hhl: { type: '/homehost/rec/server-listing/1', name: (record) => base32(serverId(record)) },
  hhk: { type: '/homehost/rec/key-chain/1', name: (record) => base32(record.root) },
  hhh: {
    type: '/homehost/rec/host-announcement/1',
    name: (record) => `${base32(record.root)}/${record.device}`
  }
}

const validator = (namespace, { type, name }) => async (key, value) => {
  const record = await open(value)
  if (record.payloadType !== type) {
    throw new Error(`${record.payloadType} does not belong under /${namespace}`)
  }
  const right = `/${namespace}/${name(record)}`
  if (new TextDecoder().decode(key) !== right) throw new Error(`this belongs under ${right}`)
}

/** The order of versions: key epoch, then seq. */
function compare (a, b) {
  const [x, y] = [a, b].map(({ epoch, seq }) => [BigInt(epoch), BigInt(seq)])
  const at = x[0] === y[0] ? 1 : 0
  return x[at] < y[at] ? -1 : x[at] > y[at] ? 1 : 0
}

/** Which of several valid values stands: the highest order, then the lower id. */
function select (_key, values) {
  const rows = values.map((value, at) => ({
    at,
    id: hex(blake3(value)),
    ...readPayload(RecordEnvelope.createFromProtobuf(value).payload)
  }))
  rows.sort((a, b) => compare(b, a) || (a.id < b.id ? -1 : 1))
  return rows[0].at
}

export const validators = Object.fromEntries(
  Object.entries(NAMESPACES).map(([name, rule]) => [name, validator(name, rule)]))
export const selectors = Object.fromEntries(
  Object.keys(NAMESPACES).map((name) => [name, select]))
