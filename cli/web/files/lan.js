// Who is on the local network, and what they share. All of it is their word.

import { $, button, h, keyed, opener, pages, setText, soon } from './dom.js'
import { count, petname, setAlias, shortPeer, size, visible } from './text.js'
import { showInside } from './shares.js'
import { get } from './transfers.js'
import * as names from './names.js'

const here = new Map()
const sharesFirst = 5 // of each, until more are asked for

export const clear = () => { here.clear(); draw() }

export function update(n) {
  if (n.state === 'left') here.delete(n.peer)
  else here.set(n.peer, n)
  setAlias(n.peer, visible(n.name))
  draw()
}

export function start() {
  $('lan-filter').addEventListener('input', shown)
  draw()
}

export function shown() {
  const filter = $('lan-filter').value.trim().toLowerCase()
  const has = text => text.toLowerCase().includes(filter)
  const all = [...here.values()].filter(n => !filter || has(n.name) || has(petname(n.peer) ?? '') || n.first.some(s => has(s.name)))
  all.sort((a, b) => order.compare(a.name, b.name) || (a.peer < b.peer ? -1 : 1))
  setText($('lan-n'), here.size ? count(here.size, 'peer', 'peers') : '')
  pages($('lan-list'), all, n => n.peer, makeCard,
    here.size ? 'Nobody here has that in a name.' : 'Nobody else is here. Other machines on this network appear by themselves, without the internet.', shown, 30)
}

const order = new Intl.Collator()

const draw = soon(() => {
  $('neighbors').hidden = !here.size
  setText($('neighbors'), here.size ? String(here.size) : '')
  $('neighbors').setAttribute('aria-label', count(here.size, 'peer', 'peers'))
  if (!$('lan').hidden) shown()
})

function makeCard(n) {
  const name = h('bdi')
  const meta = h('p', { class: 'meta' })
  const shares = h('ul', { class: 'inner' })
  const called = () => visible(petname(n.peer) ?? n.name) || 'the peer ' + shortPeer(n.peer)
  const trust = button('Trust…', '', () => names.trust(n.peer, called()).then(shown))
  const block = button('Block', '', () => names.block(n.peer, called()))
  const show = () => pages(shares, n.first, s => s.id + ' ' + s.name, s => makeShare(n, s), '', show, sharesFirst)
  return {
    element: h('li', { class: 'card' }, h('div', { class: 'item' },
      h('div', { class: 'text' }, h('h3', {}, name), meta), h('div', { class: 'acts' }, trust, block)), h('div', {}, shares)),
    update(now) {
      n = now
      setText(name, called())
      shares.setAttribute('aria-label', 'Shares of ' + called())
      trust.setAttribute('aria-label', 'Trust ' + called())
      trust.hidden = petname(n.peer) !== undefined
      block.setAttribute('aria-label', 'Block ' + called())
      const own = petname(n.peer) !== undefined && n.name ? 'calls itself ' + visible(n.name) : ''
      setText(meta, [shortPeer(n.peer), own, n.problem ? n.problem : count(n.shares, 'share', 'shares') +
        (n.shares > n.first.length ? ', the newest ' + n.first.length + ' here' : '')].filter(Boolean).join(' · '))
      meta.classList.toggle('bad', !!n.problem)
      shares.hidden = !n.first.length
      show()
    },
  }
}

function makeShare(n, s) {
  const name = visible(s.name)
  return { element: h('li', { class: 'item' },
    h('div', { class: 'text' }, h('bdi', {}, name), ' ', h('span', { class: 'quiet' }, size(s.size)),
      s.note && h('p', { class: 'meta note', dir: 'auto' }, visible(s.note))),
    h('div', { class: 'acts' },
      opener(s.id, s.name, name),
      s.kind === 'dir' && button('Look inside', 'Look inside ' + name, () => showInside(s.id, name, n.addrs[0])),
      button('Get', 'Get ' + name + ' from ' + visible(n.name), () => get({ what: s.id, name: s.name, peers: n.addrs.slice(0, 4) })))) }
}
