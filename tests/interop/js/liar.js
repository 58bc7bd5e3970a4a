// A node that lies: it answers what it is asked as a test wants it to.

import { randomBytes } from 'node:crypto'
import { encode } from 'cborg'
import { frame, protocol, QUERY_PROTOCOL, readAll } from './directory.js'
import { fromCbor, unhex } from './records.js'

const RECONCILE = 4

/** A response with the fields that are given; a cursor may be a fresh one. */
function response ({ records, cursor, message, network, matching, trouble }) {
  const map = new Map()
  if (records != null) map.set(1, records.map(({ envelope, age }) => [unhex(envelope), age ?? null]))
  if (cursor != null) map.set(2, cursor === 'fresh' ? randomBytes(90) : unhex(cursor))
  if (message != null) map.set(3, message)
  if (network != null) map.set(4, network)
  if (matching != null) map.set(5, matching)
  if (trouble != null) map.set(6, trouble)
  return frame(encode(map))
}

/** Sends an answer, which may be `{ raw }` bytes, `{ silent }` or `{ closed }`. */
async function say (stream, answer) {
  if (answer.silent) return
  if (answer.closed) return stream.close()
  const bytes = answer.raw != null ? unhex(answer.raw) : response(answer)
  for (let at = 0; at < bytes.length; at += 64_000) {
    if (!stream.send(bytes.subarray(at, at + 64_000))) await stream.onDrain()
  }
  if (!answer.open) await stream.close()
}

/** Reads a request; those that are cut short are nobody's here. */
async function question (stream) {
  const bytes = await readAll(stream)
  return fromCbor(bytes.subarray(4))
}

/** Groups of seven bits, highest first, as negentropy has its numbers. */
function bigEndianVarint (value) {
  const bytes = [value % 128]
  for (value = Math.floor(value / 128); value > 0; value = Math.floor(value / 128)) {
    bytes.unshift(value % 128 | 0x80)
  }
  return Buffer.from(bytes)
}

/** "In all of time I have these": one range to infinity with a list of ids. */
const claim = (count) => Buffer.concat([
  Buffer.from([0x61, 0, 0, 2]), bigEndianVarint(count), randomBytes(32 * count)
])

/**
 * Answers clients with these answers in turn, the last again and again. `of.asked`
 * is how many questions came.
 */
export async function answerClients (of, answers) {
  of.asked = 0
  await of.host.handle(QUERY_PROTOCOL, (stream) => {
    const turn = async () => {
      await question(stream)
      const answer = answers[Math.min(of.asked, answers.length - 1)]
      of.asked += 1
      await say(stream, answer)
    }
    turn().catch(console.error)
  }, { maxInboundStreams: 1000 })
}

/**
 * Says that it holds a replica, claims so many records in each comparison that
 * nobody ever made, and gives none. `claims` is how many comparisons it answered,
 * `withheld` how many records it was asked for.
 */
export async function claimRecords (of, count) {
  Object.assign(of, { claims: 0, withheld: 0 })
  await of.host.handle(protocol(of.network), (stream) => {
    const turn = async () => {
      const asked = await question(stream)
      if (asked.get(1) === RECONCILE) {
        of.claims += 1
        await say(stream, { message: claim(count) })
      } else {
        of.withheld += asked.get(9)?.length ?? 0
        await say(stream, {})
      }
    }
    turn().catch(console.error)
  }, { maxInboundStreams: 1000 })
}
