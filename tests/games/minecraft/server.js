// A server that speaks the protocol of Minecraft 1.16 and has an empty world.
const mc = require('minecraft-protocol')
const [port, slots] = process.argv.slice(2).map(Number)

const server = mc.createServer({
  host: '127.0.0.1',
  port,
  version: '1.16.4',
  'online-mode': false,
  maxPlayers: slots,
  motd: 'Block World'
})
server.on('listening', () => console.log(`listening on port ${port}`))
server.on('login', (client) => {
  console.log(`${client.username} joined`)
  client.on('end', () => console.log(`${client.username} left`))
})
server.on('error', (error) => {
  console.log(`error: ${error.message}`)
  process.exit(1)
})
process.on('SIGINT', () => {
  console.log('shutting down')
  process.exit(0)
})
