// Search by words.

import { list } from './api.js'
import { $, act, button, h, opener, pages, setText, show, soon } from './dom.js'
import { count, petname, size, span, visible, who } from './text.js'
import { get } from './transfers.js'
import * as names from './names.js'

let searching

export function start() { $('search').addEventListener('submit', act(search)) }

async function search(event) {
  searching?.abort()
  const mine = searching = new AbortController()
  const hits = new Map()
  const draw = () => pages($('found'), [...hits.values()], hit => hit.id, makeHit, '', draw, 50)
  const later = soon(draw)
  draw()
  setText($('find-state'), 'Searching…')
  let ended
  try {
    for await (const line of list('find', { q: event.target.elements.q.value }, mine.signal)) {
      if (line.event === 'searched') {
        ended = line
        hits.clear() // the best first, now
      }
      if (line.event && line.event !== 'found') continue
      hits.set(line.id, line)
      later()
    }
    draw()
    const why = (ended?.why ?? []).join('; ')
    setText($('find-state'), hits.size
      ? count(hits.size, 'content', 'contents') + ' in ' + span(ended?.seconds ?? 0) + (why ? '. There may be more: ' + why : '')
      : 'Nothing was found.' + (why ? ' There may be something: ' + why : ''))
  } catch (error) {
    setText($('find-state'), error.reason === 'not_found' ? 'Nothing was found.' : '')
    if (error.reason !== 'not_found') throw error
  }
}

const tiers = ['yours', 'a group’s name', 'somebody you trust', 'strangers']

function makeHit(hit) {
  const name = visible(hit.name)
  const meta = h('p', { class: 'meta' })
  const mixed = h('span', { class: 'tag warn' })
  return {
    element: h('li', {}, h('div', { class: 'item' },
      h('div', { class: 'text' }, h('h3', {}, h('bdi', {}, name), mixed), meta),
      h('div', { class: 'acts' }, opener(hit.id, hit.name, name),
        button('Details', 'Details of ' + name, () => details(hit, name)),
        button('Get', 'Get ' + name, () => get({ what: hit.id, name: hit.name }))))),
    update(now) {
      hit = now
      const warnings = [hit.mixed && 'mixes ' + hit.mixed, hit.like && 'looks like ' + visible(hit.like)].filter(Boolean)
      mixed.hidden = !warnings.length
      setText(mixed, warnings.join(', '))
      setText(meta, [size(hit.size), tiers[hit.tier] ?? '', hit.publishers?.length ? 'said by ' + hit.publishers.slice(0, 2).map(who).join(', ') : '',
        (hit.where ?? []).map(visible).join(', '), hit.verified ? 'verified' : hit.reachable ? 'can be had' : 'nobody who has it answers', hit.id.slice(0, 15)].filter(Boolean).join(' · '))
    },
  }
}

// details tells who says that this is its name, and lets a person judge them.
function details(hit, name) {
  const publishers = (hit.publishers ?? []).map(p => h('li', { class: 'item' },
    h('div', { class: 'text' }, who(p), h('p', { class: 'meta mono' }, p)),
    h('div', { class: 'acts' }, petname(p) === undefined && button('Trust…', 'Trust ' + who(p), () => names.trust(p, who(p))),
      button('Block', 'Block ' + who(p), () => names.block(p, who(p))))))
  show(name, h('p', { class: 'mono' }, hit.id),
    h('p', {}, [size(hit.size), hit.networks ? 'told by ' + count(hit.networks, 'network', 'networks') : ''].filter(Boolean).join(' · ')),
    publishers.length && h('p', { class: 'quiet' }, 'Who says that this is its name:'),
    h('ul', { class: 'inner', 'aria-label': 'Publishers' }, publishers),
    h('p', {}, button('Block this content', '', () => names.block(hit.id, name))))
}
