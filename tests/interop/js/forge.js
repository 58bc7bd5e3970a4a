// Signatures that some rule of Ed25519 accepts and another does not, by plain
// arithmetic on the curve.

import { createHash, createPublicKey, verify } from 'node:crypto'
import { RecordEnvelope } from '@libp2p/peer-record'
import { ed25519, ED25519_TORSION_SUBGROUP } from '@noble/curves/ed25519.js'
import { field, varint } from './protobuf.js'
import { DOMAIN, open, readPayload, rootOf, unhex } from './records.js'

const { Point } = ed25519
const ORDER = Point.CURVE().n
const IDENTITY = Point.ZERO.toBytes()
/** A point of order 8. */
const TORSION = ED25519_TORSION_SUBGROUP.map((text) => Point.fromHex(text))
  .find((point) => !point.multiplyUnsafe(4n).equals(Point.ZERO))

const signingInput = (...parts) =>
  Buffer.concat(parts.flatMap((part) => [varint(part.length), Buffer.from(part)]))

const littleEndian = (bytes) => BigInt(`0x${Buffer.from(bytes).reverse().toString('hex') || 0}`)

const scalar = (value) =>
  Buffer.from(value.toString(16).padStart(64, '0'), 'hex').reverse()

/** The number that binds a signature to nonce point, key and message. */
const challenge = (...parts) =>
  littleEndian(createHash('sha512').update(Buffer.concat(parts)).digest()) % ORDER

/** A secret key's number and point. */
const keyOf = (seed) => {
  const { scalar: a, point } = ed25519.utils.getExtendedPublicKey(seed)
  return { a, point }
}

/** Nonces need not be secret here: nothing is at stake with these keys. */
const NONCE = 0x1234_5678n

/** Signs with number `a` under a key that need not be `a` times the base. */
function sign (a, key, message, nonce = NONCE) {
  const point = Point.BASE.multiply(nonce).toBytes()
  const s = (nonce + challenge(point, key, message) * a) % ORDER
  return Buffer.concat([point, scalar(s)])
}

/** Each way to forge: the key to show, and how to sign. */
const WAYS = {
  // R is the neutral element: the plain equation holds.
  'small-order nonce': ({ a, point }) => ({
    key: point.toBytes(),
    sign: (message) => {
      const s = challenge(IDENTITY, point.toBytes(), message) * a % ORDER
      return Buffer.concat([IDENTITY, scalar(s)])
    }
  }),
  // A key for which everybody can sign everything.
  'small-order key': () => ({ key: IDENTITY, sign: (message) => sign(0n, IDENTITY, message) }),
  // s + L: the same signature in other bytes.
  malleable: ({ a, point }) => ({
    key: point.toBytes(),
    sign: (message) => {
      const signature = sign(a, point.toBytes(), message)
      const s = littleEndian(signature.subarray(32)) + ORDER
      return Buffer.concat([signature.subarray(0, 32), scalar(s)])
    }
  }),
  // A key with a torsion component, and a nonce for which it does not cancel
  // out: only those who multiply by the cofactor accept it.
  cofactored: ({ a, point }) => {
    const key = point.add(TORSION).toBytes()
    const sound = (message, nonce) =>
      challenge(Point.BASE.multiply(nonce).toBytes(), key, message) % 8n === 0n
    return {
      key,
      sign: (message) => {
        let nonce = NONCE
        while (sound(message, nonce)) nonce += 1n
        return sign(a, key, message, nonce)
      }
    }
  },
  // One bit is wrong; no rule accepts it.
  wrong: ({ a, point }) => ({
    key: point.toBytes(),
    sign: (message) => {
      const signature = sign(a, point.toBytes(), message)
      signature[40] ^= 1
      return signature
    }
  }),
  // The control: what is above except for what is wrong there.
  sound: ({ a, point }) => ({
    key: point.toBytes(), sign: (message) => sign(a, point.toBytes(), message)
  })
}

/** OpenSSL's rule, which js-libp2p applies under Node. */
function opensslAccepts (key, message, signature) {
  const x = Buffer.from(key).toString('base64url')
  const made = createPublicKey({ key: { crv: 'Ed25519', kty: 'OKP', x }, format: 'jwk' })
  return verify(null, message, made, signature)
}

/**
 * Signs the record of an envelope anew. The envelope's own signer had `seed`;
 * where the key changes, so does the root in the payload.
 */
export async function forge ({ how, seed, envelope }) {
  const { payloadType, payload } = RecordEnvelope.createFromProtobuf(unhex(envelope))
  const { key, sign } = WAYS[how](keyOf(unhex(seed)))
  const record = readPayload(payload)
  const forged = Buffer.from(payload)
  Buffer.from(rootOf(key, record.next)).copy(forged, forged.indexOf(record.root))
  const message = signingInput(Buffer.from(DOMAIN), payloadType, forged)
  const signature = sign(message)
  const bytes = Buffer.concat([
    field(1, Buffer.concat([Buffer.from([8, 1, 0x12, 0x20]), key])),
    field(2, Buffer.from(payloadType)),
    field(3, forged),
    field(5, signature)
  ])
  return {
    envelope: bytes.toString('hex'),
    libp2p: await open(bytes).then(() => true, () => false),
    openssl: opensslAccepts(key, message, signature),
    // js-libp2p's rule in a browser without Ed25519 of its own.
    noble: ed25519.verify(signature, message, key)
  }
}
