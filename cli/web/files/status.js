// This peer at a glance.

import { list, one, post } from './api.js'
import { $, act, alarm, h, setText, tell } from './dom.js'
import { count, size, span } from './text.js'

const mib = 1 << 20

export function start() {
  $('limits').addEventListener('submit', act(async event => {
    const form = event.target
    const bytes = field => Math.round((Number(field.value) || 0) * mib)
    await post('limits', { max_up: bytes(form.up), max_down: bytes(form.down) })
    tell('The limits hold until this peer stops')
  }))
  $('examine').addEventListener('click', act(examine))
  $('logout').addEventListener('click', act(async () => {
    await post('logout')
    location.replace('/')
  }))
}

export async function shown() {
  try {
    const [now, limits] = await Promise.all([one('status'), post('limits')])
    const facts = {
      'Peer ID': now.peer_id, 'Name': now.alias, 'Shares': count(now.shares, 'share', 'shares') + ', ' + size(now.bytes),
      'Connected to': count(now.peers, 'peer', 'peers') + ', ' + now.dht_peers + ' of the DHT', 'Local network': count(now.neighbors, 'neighbor', 'neighbors'),
      'Trust book': now.trusted + ' trusted, ' + count(now.choices, 'choice', 'choices') + ', ' + now.blocked + ' blocked',
      'Addresses': now.addrs.join('\n'), 'Saves in': now.folder, 'Home': now.home, 'Cache': size(now.cache) + ' of ' + size(now.cache_max), 'Running': 'for ' + span((Date.now() - new Date(now.since)) / 1000), 'Version': now.version,
    }
    $('status-list').replaceChildren(...Object.entries(facts).filter(([, v]) => v).flatMap(([k, v]) => [h('dt', {}, k), h('dd', {}, v)]))
    for (const [field, value] of [['up', limits.max_up], ['down', limits.max_down]]) {
      const input = $('limits').elements[field]
      if (document.activeElement !== input) input.value = value ? String(+(value / mib).toFixed(3)) : ''
    }
  } catch (error) {
    alarm(error)
  }
}

async function examine() {
  const rows = $('findings')
  rows.replaceChildren(h('li', { class: 'none' }, 'Looking…'))
  const found = []
  for await (const f of list('doctor')) {
    found.push(h('li', {}, h('h3', {}, f.check + ' ' + f.subject, h('span', { class: 'tag ' + { ok: 'ok', warn: 'warn', fail: 'bad' }[f.state] }, f.state)),
      h('p', { class: 'meta' }, f.message + (f.remedy ? ' — ' + f.remedy : ''))))
  }
  rows.replaceChildren(...found)
  setText($('told'), count(found.length, 'finding', 'findings'))
}
