// The witness RPC (docs/spec/mesh.md §9), and what its statements are worth
// (docs/spec/records.md §14).

import { createPublicKey, verify } from 'node:crypto'
import { encode } from 'cborg'
import { exchange } from './directory.js'
import { fromCbor, hex, text, unhex } from './records.js'

export const protocol = (network) => `/homehost/${network}/attest/1`

const number = (bytes, value) => {
  const out = Buffer.alloc(bytes)
  bytes === 8 ? out.writeBigUInt64BE(BigInt(value)) : out.writeUIntBE(value, 0, bytes)
  return out
}

/** 16 bytes of an address; those of IPv4 are mapped. */
const mapped = (ip) => ip.length === 16
  ? ip
  : Buffer.concat([Buffer.alloc(10), Buffer.from([0xff, 0xff]), ip])

/** Whether a statement is signed by the node that it names. */
function holds (network, server, way, [ip, port, transport], [node, at, players, signature]) {
  const input = Buffer.concat([
    text('homehost-attest/1'), unhex(server), mapped(ip), number(2, port),
    Buffer.from([transport, way]), number(8, at), number(4, players ?? 0xffff_ffff), text(network)
  ])
  const x = Buffer.from(node).toString('base64url')
  const key = createPublicKey({ key: { crv: 'Ed25519', kty: 'OKP', x }, format: 'jwk' })
  return verify(null, input, key, signature)
}

/** Asks the other end to reach a port of ours. */
export async function attest (connection, network, { server, port, way }) {
  const request = encode(new Map([[1, unhex(server)], [2, port], [3, way]]))
  const bytes = await exchange(connection, protocol(network), request)
  const answer = fromCbor(bytes.subarray(4))
  if (answer.has(3)) return { refusal: answer.get(3) }
  const [address, statement] = [answer.get(1), answer.get(2)]
  const [node, at, players] = statement
  return {
    ip: [...address[0]].join('.'),
    port: address[1],
    node: hex(node),
    at: Number(at),
    players,
    by_whom_was_asked: hex(connection.remotePeer.publicKey.raw) === hex(node),
    holds: holds(network, server, way, address, statement),
    // The check can fail: of another port the statement says nothing.
    holds_of_another: holds(network, server, way, [address[0], port ^ 1, address[2]], statement)
  }
}
