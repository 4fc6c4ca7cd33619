// Who is on the local network, and what they share. All of it is their word.

import { post } from './api.js'
import { $, ask, button, h, keyed, setText, tell } from './dom.js'
import { count, setAlias, shortPeer, size, visible, who } from './text.js'
import { showInside } from './shares.js'
import { get } from './transfers.js'
import * as names from './names.js'

const here = new Map()

export function clear() { here.clear(); draw() }

export function update(n) {
  if (n.state === 'left') here.delete(n.peer)
  else here.set(n.peer, n)
  setAlias(n.peer, visible(n.name))
  draw()
}

export const start = draw

function draw() {
  const all = [...here.values()].sort((a, b) => a.name.localeCompare(b.name))
  keyed($('lan-list'), all, n => n.peer, makeCard, 'Nobody else is here. Other machines on this network appear by themselves, without the internet.')
  $('neighbors').hidden = !all.length
  setText($('neighbors'), all.length ? String(all.length) : '')
  $('neighbors').setAttribute('aria-label', count(all.length, 'peer', 'peers'))
}

function makeCard(n) {
  const name = h('h3')
  const meta = h('p', { class: 'meta' })
  const shares = h('ul', { class: 'inner', 'aria-label': 'Shares' })
  const acts = h('div', { class: 'acts' },
    button('Trust…', 'Trust ' + visible(n.name), () => trust(n)),
    button('Block', 'Block ' + visible(n.name), () => block(n)))
  return {
    element: h('li', { class: 'card' }, h('div', { class: 'item' }, h('div', { class: 'text' }, name, meta), acts), shares),
    update(now) {
      n = now
      setText(name, visible(n.name) || 'without a name')
      setText(meta, [who(n.peer), n.problem ? n.problem : count(n.shares, 'share', 'shares')].join(' · '))
      meta.classList.toggle('bad', !!n.problem)
      keyed(shares, n.first, s => s.id + ' ' + s.name, s => makeShare(n, s))
    },
  }
}

function makeShare(n, s) {
  const name = visible(s.name)
  return { element: h('li', { class: 'item' },
    h('div', { class: 'text' }, name, ' ', h('span', { class: 'quiet' }, size(s.size)),
      s.note && h('p', { class: 'meta note' }, visible(s.note))),
    h('div', { class: 'acts' },
      s.kind === 'dir' && button('Look inside', 'Look inside ' + name, () => showInside(s.id, name, n.addrs[0])),
      button('Get', 'Get ' + name + ' from ' + visible(n.name), () => get({ what: s.id, name: s.name, peers: n.addrs.slice(0, 4) })))) }
}

async function trust(n) {
  const petname = await ask('Trust ' + visible(n.name) + '?', 'Its ID is ' + n.peer + '. Compare it with what p2pshare id prints there. Names it publishes are then believed.', 'Trust', 'Call it')
  if (!petname) return
  await post('names/trust', { who: n.peer, petname })
  await names.shown()
  tell('You trust ' + visible(petname))
  draw()
}

async function block(n) {
  if (!await ask('Block ' + visible(n.name) + '?', 'Nothing is got from ' + shortPeer(n.peer) + ' or sent to it any more.', 'Block')) return
  await post('names/block', { what: n.peer })
  tell(visible(n.name) + ' is blocked')
}
