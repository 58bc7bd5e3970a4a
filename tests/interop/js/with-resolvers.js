// `Promise.withResolvers`, which libp2p uses and Node 20 does not have. Loaded
// before everything else.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new Promise((yes, no) => { resolve = yes; reject = no })
  return { promise, resolve, reject }
}
