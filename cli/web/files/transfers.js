// What comes and what goes.

import { post } from './api.js'
import { $, act, button, h, keyed, open, opener, setText, svg, tell } from './dom.js'
import { among, count, rate, size, span, visible, who } from './text.js'

let folder = ''

// known tells who this peer is, once that is known.
export function known(peer) {
  folder = peer.folder
  $('get').dir.value ||= folder
}

export function start() {
  const form = $('get')
  form.addEventListener('submit', act(async () => {
    await get({ what: form.what.value.trim(), dir: form.dir.value.trim() })
    form.what.value = ''
  }))
}

// get begins a get that goes on without this page. name is what it is called meanwhile.
export async function get({ name, ...request }) {
  const dir = request.dir || folder
  if (!dir) throw new Error('Where is it to be saved? Fill in "Save in".')
  const accepted = await post('transfers', { ...request, dir, detached: true })
  tell('Getting ' + visible(name ?? request.what) + ' into ' + dir)
  location.hash = 'transfers'
  return accepted
}

const seen = new Map() // of transfers that come: how they stood last

export function update({ transfers }) {
  const down = transfers.filter(t => t.direction === 'down').reverse()
  const up = transfers.filter(t => t.direction === 'up')
  keyed($('down'), down, t => t.id, makeDown, 'Nothing is coming.')
  keyed($('up'), up, t => t.peer + (t.content ?? ''), makeUp, 'Nobody gets anything from here just now.')
  const moving = down.filter(t => t.state === 'running').length
  $('moving').hidden = !moving
  setText($('moving'), moving ? String(moving) : '')
  $('moving').setAttribute('aria-label', moving ? moving + ' coming' : '')
  for (const t of down) {
    const before = seen.get(t.id)
    if (before && before !== t.state && t.state === 'done') tell(title(t) + ' is here: ' + visible(t.path))
    if (before && before !== t.state && t.state === 'failed') tell(title(t) + ' failed: ' + t.problem)
    seen.set(t.id, t.state)
  }
}

const title = t => visible(t.name || t.what || t.content || 'unknown')

const phases = {
  local: 'looking here', group: 'asking the group', lan: 'asking the local network', dht: 'searching the DHT', dialling: 'reaching who has it',
  hashing: 'reading', fetching: '', verifying: 'verifying', writing: 'writing',
}

function makeDown(t) {
  const name = h('bdi')
  const bar = h('progress', { max: 1 })
  const look = opener('', '', '')
  const meta = h('p', { class: 'meta' })
  const problem = h('p', { class: 'bad', hidden: true })
  const choices = h('ul', { class: 'inner', hidden: true, 'aria-label': 'Contents of that name' })
  const picture = h('div')
  const change = op => async () => { await post('transfers/' + op, { id: t.id }) }
  const pause = button('Pause', 'Pause', () => change(t.state === 'paused' ? 'resume' : 'pause')())
  const cancel = button('Cancel', 'Cancel', change('cancel'))
  const again = button('Try again', 'Try again', async () => {
    await change('cancel')()
    await get({ what: t.what, dir: directory(t.path) })
  })
  const element = h('li', {}, h('div', { class: 'item' },
    h('div', { class: 'text' }, h('h3', {}, name), bar, meta, problem, choices),
    h('div', { class: 'acts' }, look, pause, again, cancel)), picture)
  return {
    element,
    update(now) {
      t = now
      const live = t.state === 'running' || t.state === 'paused'
      setText(name, title(t))
      element.classList.toggle('paused', t.state === 'paused')
      bar.hidden = !live
      bar.setAttribute('aria-label', title(t))
      if (t.total && t.phase !== 'lan' && t.phase !== 'dht') bar.value = t.done / t.total
      else if (t.state === 'running') bar.removeAttribute('value')
      setText(meta, describe(t))
      problem.hidden = t.state !== 'failed'
      const several = t.state === 'failed' && t.error?.candidates?.length > 0
      problem.className = several ? 'warn' : 'bad'
      setText(problem, several ? 'Several contents claim this name. Which one is meant?'
        : t.state === 'failed' ? t.problem + (t.error?.hint ? ' — ' + t.error.hint : '') : '')
      look.hidden = !t.content
      if (t.content) open(look, t.content, t.name, title(t))
      pause.hidden = !live
      setText(pause, t.state === 'paused' ? 'Resume' : 'Pause')
      label(pause, pause.textContent)
      again.hidden = t.state !== 'failed' || !t.what || !t.path
      label(again, 'Try again')
      setText(cancel, live ? 'Cancel' : 'Clear')
      label(cancel, cancel.textContent)
      choices.hidden = !several
      if (!choices.hidden && !choices.children.length) choices.append(...t.error.candidates.map(c => candidate(t, c, change('cancel'))))
      drawSources(picture, live ? t.sources ?? [] : [], t.state === 'running')
    },
  }
  function label(button, text) { button.setAttribute('aria-label', text + ': ' + title(t)) }
}

const directory = path => path ? path.replace(/[/\\][^/\\]*$/, '') : ''

function describe(t) {
  switch (t.state) {
    case 'done': return size(t.total) + ' · saved as ' + among(t.path)
    case 'failed': return ''
    case 'paused': return 'Paused at ' + size(t.done) + (t.total ? ' of ' + size(t.total) : '')
  }
  const parts = [phases[t.phase] ?? t.phase]
  if (t.phase === 'fetching' || t.done > 0 && t.total > 0 && t.phase !== 'lan' && t.phase !== 'dht') {
    parts.push(size(t.done) + (t.total ? ' of ' + size(t.total) : ''))
    if (t.rate) parts.push(rate(t.rate))
    if (t.eta_s) parts.push(span(t.eta_s) + ' left')
    if (t.sources?.length) parts.push('from ' + count(t.sources.length, 'source', 'sources'))
  }
  return parts.filter(Boolean).join(' · ')
}

// candidate is one of several contents that claim the name: the person chooses.
function candidate(t, c, clear) {
  const by = c.publishers?.length ? 'said by ' + c.publishers.slice(0, 3).map(who).join(', ') + (c.publishers.length > 3 ? ' and others' : '') : ''
  return h('li', { class: 'item' },
    h('div', { class: 'text' }, visible(c.name), h('p', { class: 'meta' },
      [size(c.size), by, c.id.slice(0, 15), c.reachable ? '' : 'nobody who has it answers', c.mixed ? 'mixes ' + c.mixed : '', c.like ? 'looks like ' + visible(c.like) : ''].filter(Boolean).join(' · '))),
    button('Get this one', 'Get ' + visible(c.name) + ' of ' + size(c.size) + ', ' + c.id.slice(3, 11), async () => {
      await clear()
      await get({ what: t.what, pick: c.id, dir: directory(t.path), accept_change: true })
    }))
}

function makeUp() {
  const name = h('bdi')
  const meta = h('p', { class: 'meta' })
  return {
    element: h('li', {}, h('h3', {}, name), meta),
    update(t) {
      setText(name, title(t))
      setText(meta, ['to ' + who(t.peer), t.via, size(t.done), t.rate ? rate(t.rate) : ''].filter(Boolean).join(' · '))
    },
  }
}

const sourcesMax = 6
const rowHeight = 42

// drawSources draws who sends what: a line from each source to this peer, as thick as its
// share of the rate, and what each has given. The same is in words for who does not see it.
function drawSources(box, sources, running) {
  const shown = sources.slice(0, sourcesMax)
  if (!shown.length) {
    if (box.firstChild) box.replaceChildren()
    return
  }
  // In pixels, so that its text is as large as the rest.
  const width = Math.min(box.clientWidth || 540, 640)
  const left = Math.min(230, width * 0.55), right = width - 52
  const rates = shown.reduce((sum, s) => sum + s.rate, 0) || 1
  const height = shown.length * rowHeight
  const middle = height / 2
  const names = shown.map(s => s.mirror ? host(s.mirror) : who(s.peer))
  const said = shown.map((s, i) => names[i] + ' ' + size(s.bytes) + (s.rate ? ' at ' + rate(s.rate) : '')).join('; ')
  box.replaceChildren(svg('svg', { class: 'flow', viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': 'Who sends: ' + said },
    shown.map((s, i) => {
      const y = i * rowHeight + rowHeight / 2
      const thick = (1.5 + 7 * s.rate / rates).toFixed(1)
      const turn = (left + right) / 2
      return svg('g', { class: 's' + (i + 1) },
        svg('path', { d: `M${left + 18} ${y} C${turn} ${y} ${turn} ${middle} ${right - 12} ${middle}`, 'stroke-width': thick, class: running && s.rate ? 'on' : '' }),
        svg('circle', { cx: left + 10, cy: y, r: 6 }),
        svg('text', { x: left - 4, y: y - 3, 'text-anchor': 'end' }, cut(names[i], left / 7.2)),
        svg('text', { x: left - 4, y: y + 13, 'text-anchor': 'end', class: 'sub' },
          [left > 200 ? s.via : '', size(s.bytes), s.rate ? rate(s.rate) : ''].filter(Boolean).join(' · ')))
    }),
    svg('circle', { cx: right, cy: middle, r: 10 }),
    svg('text', { x: right + 18, y: middle + 4, class: 'you' }, 'you')),
  sources.length > sourcesMax ? h('p', { class: 'meta' }, 'and ' + (sources.length - sourcesMax) + ' more') : '')
}

const cut = (text, max) => text.length > max ? text.slice(0, max - 1) + '…' : text
function host(url) { try { return new URL(url).host } catch { return url } }
