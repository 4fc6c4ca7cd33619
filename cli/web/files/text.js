// Sizes, times and peers for people.

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

export function size(bytes) {
  let i = 0
  while (bytes >= 1024 && i < units.length - 1) { bytes /= 1024; i++ }
  return (i && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)) + ' ' + units[i]
}

export const rate = bytes => size(bytes) + '/s'

export function span(seconds) {
  if (seconds < 1) return 'less than a second'
  if (seconds < 90) return Math.round(seconds) + ' s'
  if (seconds < 5400) return Math.round(seconds / 60) + ' min'
  if (seconds < 172800) return Math.round(seconds / 3600) + ' h'
  return Math.round(seconds / 86400) + ' days'
}

export const ago = time => span((Date.now() - new Date(time)) / 1000) + ' ago'

export const count = (n, one, many) => n + ' ' + (n === 1 ? one : many)

// shortPeer is the end of a peer ID: all of them begin alike.
export const shortPeer = id => id ? '…' + id.slice(-8) : ''

const petnames = new Map()
export function setPetnames(entries) {
  petnames.clear()
  for (const e of entries) if (e.kind === 'petname') petnames.set(e.peer, e.petname)
}
const aliases = new Map()
export const setAlias = (id, name) => aliases.set(id, name)

// who is a peer: the name that its person here gave it, or as it calls itself, which proves
// nothing and so comes with the end of its ID.
export function who(id) {
  if (petnames.has(id)) return petnames.get(id)
  const alias = aliases.get(id)
  return alias ? alias + ' ' + shortPeer(id) : shortPeer(id)
}

// visible shows a name with what can't be seen in it, as controls and marks that turn the
// direction of writing.
export function visible(name) {
  return name.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cs}]/gu, c => '\\u{' + c.codePointAt(0).toString(16) + '}')
}
