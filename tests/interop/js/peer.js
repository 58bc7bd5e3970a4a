// Peers of js-libp2p that a test drives: one JSON command a line on standard
// input, one JSON answer a line on standard output, and events between them.
//
//   {"do":"start","peer":"p","network":"main"}  →  {"ok":{"id":"12D3…"}}
//   {"do":"fly"}                                →  {"error":"…"}
//   {"event":"message","peer":"p",…}               whenever it happens
//
// What a peer does is in `commands.js`, what no decent peer does in `hostile.js`.

import { createInterface } from 'node:readline'
import { commands } from './commands.js'
import { hostile } from './hostile.js'

const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`)
const known = { ...commands(say), ...hostile(say) }

// Streams that a node resets fail in places where nobody waits for them; the
// test finds out by what it asks next.
process.on('unhandledRejection', (error) => console.error('unhandled:', error))

for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...args } = JSON.parse(line)
  try {
    if (known[name] == null) throw new Error(`there is no command ${name}`)
    say({ ok: await known[name](args) ?? null })
  } catch (error) {
    console.error(line.slice(0, 200), error)
    say({ error: `${error.name}: ${error.message}` })
  }
}
// The test is over; some connections would keep this process.
process.exit(0)
