// Search by words.

import { list } from './api.js'
import { $, act, button, h, keyed, setText } from './dom.js'
import { count, size, span, visible, who } from './text.js'
import { get } from './transfers.js'

let searching

export function start() { $('search').addEventListener('submit', act(search)) }

async function search(event) {
  searching?.abort()
  const mine = searching = new AbortController()
  const hits = new Map()
  const draw = () => keyed($('found'), [...hits.values()], hit => hit.id, makeHit)
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
      draw()
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
      h('div', { class: 'text' }, h('h3', {}, name, mixed), meta),
      h('div', { class: 'acts' }, button('Get', 'Get ' + name, () => get({ what: hit.id, name: hit.name }))))),
    update(hit) {
      const warnings = [hit.mixed && 'mixes ' + hit.mixed, hit.like && 'looks like ' + visible(hit.like)].filter(Boolean)
      mixed.hidden = warnings.length === 0
      setText(mixed, warnings.join(', '))
      setText(meta, [size(hit.size), tiers[hit.tier] ?? '', hit.publishers?.length ? 'said by ' + hit.publishers.slice(0, 2).map(who).join(', ') : '',
        (hit.where ?? []).map(visible).join(', '), hit.verified ? 'verified' : hit.reachable ? 'can be had' : 'nobody who has it answers', hit.id.slice(0, 15)].filter(Boolean).join(' · '))
    },
  }
}
