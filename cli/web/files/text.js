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

export function ago(time) {
  const seconds = (Date.now() - new Date(time)) / 1000
  return seconds < 10 ? 'just now' : span(seconds) + ' ago'
}

export const until = time => span(Math.max(0, (new Date(time) - Date.now()) / 1000)) + ' left'

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
  if (petnames.has(id)) return among(petnames.get(id))
  const alias = aliases.get(id)
  return alias ? among(alias) + ' ' + shortPeer(id) : shortPeer(id)
}

export const petname = id => petnames.get(id)

// visible is a name with what can't be seen in it, as controls, fillers and marks that turn
// the direction of writing. The joiner and the selectors inside of an emoji stay.
export function visible(name) {
  return name.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cs}\p{Default_Ignorable_Code_Point}]/gu, (c, at) =>
    c === '\u200d' && before.test(name.slice(0, at)) && after.test(name.slice(at + 1)) ||
    (c === '\ufe0e' || c === '\ufe0f') && selected.test(name.slice(0, at)) ? c : '\\u{' + c.codePointAt(0).toString(16) + '}')
}
// As a class, [\p{Extended_Pictographic}\p{EMod}\ufe0f], Chromium 156 does not match it.
const before = /(?:\p{Extended_Pictographic}|\p{EMod}|\ufe0f)$/u
const selected = /(?:\p{Extended_Pictographic}|\p{EMod}|[0-9#*])$/u
const after = /^\p{Extended_Pictographic}/u

// among is a visible name as a part of a line: one that is written from the right is
// kept from turning what stands beside it.
export function among(name) {
  const text = visible(name)
  return /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Adlam}]/u.test(text) ? '\u2068' + text + '\u2069' : text
}
