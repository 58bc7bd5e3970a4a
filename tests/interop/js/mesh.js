// A js-libp2p host that speaks what HomeHost nodes speak (docs/spec/mesh.md).

import { createHash } from 'node:crypto'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { gossipsub } from '@libp2p/gossipsub'
import { identify, identifyPush } from '@libp2p/identify'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { createLibp2p } from 'libp2p'
import { hex, selectors, validators } from './records.js'

export const topics = (network) => ({
  list: `/homehost/1/${network}/list/0/0`,
  pres: `/homehost/1/${network}/pres/0/0`
})

/** Equal content is one message: SHA-256 of topic and data, cut to 20 bytes. */
export const messageId = ({ topic, data }) =>
  createHash('sha256').update(topic).update(data).digest().subarray(0, 20)

/**
 * Identify with another protocol version. js-libp2p makes it of the prefix of
 * its protocol names, which must stay `ipfs`: those are what others listen to.
 */
const introducing = (service, version) => (components) => {
  const made = service(components)
  made.host.protocolVersion = version
  return made
}

/**
 * `gossip: false` makes a peer that leaves gossip to raw streams, `alone` one
 * that neither finds others nor is found: it speaks to whom it dials.
 */
export async function join ({ network, version, agent, gossip = true, alone = false }) {
  const protocolVersion = version ?? `/homehost/1/${network}`
  const names = topics(network)
  // What a peer may open is for the node to limit, not for js-libp2p.
  const limits = { maxOutboundStreams: 10_000 }
  const services = {
    identify: introducing(identify(limits), protocolVersion),
    identifyPush: introducing(identifyPush(limits), protocolVersion),
    ping: ping(limits)
  }
  if (!alone) {
    services.dht = kadDHT({
      protocol: `/homehost/${network}/kad/1.0.0`,
      clientMode: false,
      // Others would drop the addresses of this machine.
      peerInfoMapper: passthroughMapper,
      validators,
      selectors
    })
  }
  if (gossip) {
    services.gossip = gossipsub({
      globalSignaturePolicy: 'StrictNoSign',
      msgIdFn: messageId,
      msgIdToStrFn: hex,
      allowedTopics: Object.values(names),
      allowPublishToZeroTopicPeers: false,
      floodPublish: true
    })
  }
  return createLibp2p({
    addresses: { listen: alone ? [] : ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux(limits)],
    // Tests say when a connection ends.
    connectionMonitor: { enabled: false },
    nodeInfo: { userAgent: agent ?? 'js-libp2p/3' },
    services
  })
}
