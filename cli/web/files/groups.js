// Groups: who is in them, what they have pinned, and how the copies are.

import { all, post, remove } from './api.js'
import { $, act, alarm, ask, button, h, keyed, setText, show, tell } from './dom.js'
import { count, size, span, visible, who } from './text.js'

let groups = []

export function update(now) {
  groups = now.groups
  if (!$('groups').hidden) shown()
}

export function shown() {
  keyed($('groups-list'), groups.length ? groups : [{ none: true, id: 'none' }], g => g.id, g => g.none ? makeNone() : makeGroup(g))
}

function makeNone() {
  const form = h('form', { class: 'row', onsubmit: act(async event => {
    const made = await post('groups/create', { group: event.target.elements.group.value.trim() })
    show('@' + visible(made.group) + ' is made', h('p', {}, 'This peer is its first member. Should most members be lost for good, this key brings the group back. It is told only now: keep it where you keep passwords.'),
      h('p', { class: 'mono' }, made.recovery_key))
  }) }, h('label', { class: 'grow' }, 'Name of a new group', h('input', { name: 'group', required: true, autocomplete: 'off', placeholder: 'office' })),
    h('button', { class: 'main' }, 'Create'))
  const join = h('form', { class: 'row', onsubmit: act(async event => {
    await post('groups/join', { group: event.target.elements.as.value.trim(), token: event.target.elements.token.value.trim() })
    tell('This peer is in the group')
  }) }, h('label', { class: 'grow' }, 'Or the token of an invitation', h('input', { name: 'token', required: true, autocomplete: 'off', spellcheck: 'false' })),
    h('label', {}, 'Called here', h('input', { name: 'as', autocomplete: 'off', placeholder: 'office' })),
    h('button', {}, 'Join'))
  return { element: h('div', {}, h('p', {}, 'This peer is in no group. A group remembers names, and its members keep copies of what is pinned, whoever is off.'), form, join) }
}

function makeGroup(g) {
  const name = h('h2')
  const meta = h('p', { class: 'meta' })
  const wrong = h('p', { class: 'bad' })
  const members = h('ul', { class: 'list', 'aria-label': 'Members of ' + visible(g.group) })
  const pins = h('ul', { class: 'list', 'aria-label': 'Pins of ' + visible(g.group) })
  const form = h('form', { class: 'row', onsubmit: act(async event => {
    const field = event.target.elements.what
    await post('pins', { what: field.value.trim(), group: g.group })
    tell(visible(field.value) + ' is pinned')
    field.value = ''
    await load()
  }) }, h('label', { class: 'grow' }, 'Pin a share, or what has this name', h('input', { name: 'what', required: true, autocomplete: 'off', spellcheck: 'false' })),
    h('button', { class: 'main' }, 'Pin'))
  let timer
  async function load() {
    clearTimeout(timer)
    try {
      keyed(pins, await all('pins', { group: g.group }, 500), p => p.id + ' ' + p.name, p => makePin(g, p, load), 'Nothing is pinned.')
    } catch (error) {
      alarm(error)
    }
    timer = setTimeout(() => { if (!$('groups').hidden) load() }, 3000) // copies are not told by events
  }
  return {
    element: h('div', {}, name, meta, wrong, form, h('h2', {}, 'Pins'), pins, h('h2', {}, 'Members'), members),
    update(now) {
      g = now
      setText(name, '@' + visible(g.group) + (g.follows ? ' (followed)' : ''))
      setText(meta, [count(g.members.length, 'member', 'members'), g.voters_up + ' of ' + count(g.voters, 'voter', 'voters') + ' up',
        'can lose ' + g.can_lose, g.leader ? 'led by ' + who(g.leader) : 'no leader', g.stale ? 'not up to date' : ''].filter(Boolean).join(' · '))
      const problems = [g.problem, g.hint, ...(g.warnings ?? [])].filter(Boolean).join(' — ')
      setText(wrong, problems)
      wrong.hidden = !problems
      form.hidden = !!g.follows
      keyed(members, g.members, m => m.peer, makeMember)
      load()
    },
  }
}

function makeMember(m) {
  const state = h('span', { class: 'tag' })
  const meta = h('p', { class: 'meta' })
  return {
    element: h('li', {}, h('h3', {}, who(m.peer) + (m.self ? ' (this peer)' : ''), state), meta),
    update(m) {
      setText(state, m.up ? 'up' : 'away')
      state.className = m.up ? 'tag ok' : 'tag bad'
      setText(meta, [m.vote, Array.isArray(m.roles) ? m.roles.join(', ') : m.roles, m.lag ? m.lag + ' entries behind' : '', m.waiting].filter(Boolean).join(' · '))
    },
  }
}

const healths = { ok: 'ok', copying: '', degraded: 'warn', lost: 'bad', 'no room': 'warn' }

function makePin(g, p, reload) {
  const title = visible(p.name) || p.id.slice(0, 15)
  const health = h('span', { class: 'tag' })
  const meta = h('p', { class: 'meta' })
  const bar = h('progress', { max: 1, 'aria-label': 'Copies of ' + title })
  const copies = h('ul', { class: 'copies', 'aria-label': 'Copies' })
  return {
    element: h('li', {}, h('div', { class: 'item' },
      h('div', { class: 'text' }, h('h3', {}, title, health), bar, meta, copies),
      h('div', { class: 'acts' }, !g.follows && button('Unpin', 'Unpin ' + title, async () => {
        if (!await ask('Unpin ' + title + '?', 'The group keeps no copies of it any more.', 'Unpin')) return
        await remove('pins', { what: p.name || p.id, group: g.group })
        await reload()
      })))),
    update(now) {
      p = now
      setText(health, p.state)
      health.className = 'tag ' + (healths[p.health] ?? 'warn')
      bar.hidden = p.health !== 'copying' || !p.total
      if (p.total) bar.value = p.done / p.total
      setText(meta, [size(p.size), p.verified + ' of ' + count(p.wanted, 'copy', 'copies'), p.eta_s ? span(p.eta_s) + ' left' : '', p.remedy].filter(Boolean).join(' · '))
      keyed(copies, [...(p.copies ?? []).map(c => c.peer), ...(p.absent ?? []).map(peer => '-' + peer)], k => k, k => ({
        element: k.startsWith('-') ? h('li', { class: 'gone' }, who(k.slice(1)) + ' is away') : h('li', {}, '✓ ' + who(k)) }))
    },
  }
}
