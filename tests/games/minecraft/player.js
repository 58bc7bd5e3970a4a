// A player who joins and stays.
const mc = require('minecraft-protocol')
const [port, username] = process.argv.slice(2)

const client = mc.createClient({
  host: '127.0.0.1', port: Number(port), username, version: '1.16.4'
})
client.on('success', () => console.log('joined'))
client.on('error', (error) => {
  console.log(`error: ${error.message}`)
  process.exit(1)
})
