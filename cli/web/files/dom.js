// Elements. Text reaches the page through textContent alone.

export const $ = id => document.getElementById(id)

// h makes an element: h('p', {class: 'quiet', onclick: f}, 'text', another).
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children)
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', name), attributes, children)
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(key.slice(2), value)
    else if (value === true) element.setAttribute(key, '')
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(key, value)
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false && child !== '') element.append(child)
  }
  return element
}

// setText sets text where it differs: a screen reader speaks of what changes.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text
}

// keyed keeps the children of a list in step with items. make(item) makes one, and returns
// {element, update}; it stays as long as its key is there, so that focus and selection do.
export function keyed(list, items, key, make, none) {
  const rows = list.rows ??= new Map()
  const keys = new Set(items.map(key))
  for (const [k, row] of rows) {
    if (keys.has(k)) continue
    if (row.element.contains(document.activeElement)) {
      const next = row.element.nextElementSibling ?? row.element.previousElementSibling
      const to = next?.querySelector('button') ?? list.closest('section')?.querySelector('h1')
      row.element.remove()
      to?.focus()
    } else row.element.remove()
    rows.delete(k)
  }
  list.querySelector(':scope > .none')?.remove()
  let before = list.firstElementChild
  for (const item of items) {
    const k = key(item)
    let row = rows.get(k)
    if (!row) rows.set(k, row = make(item))
    row.update?.(item)
    if (row.element === before) before = before.nextElementSibling
    else list.insertBefore(row.element, before)
  }
  if (!items.length && none) list.append(h('li', { class: 'none' }, none))
}

// pages is keyed for a long list: the first of them, and a button for more. It draws
// anew by redraw.
export function pages(list, items, key, make, none, redraw, step = 100) {
  list.shownMax ??= step
  if (!list.more) {
    list.more = button('Show more', '', async () => {
      const last = list.lastElementChild
      list.shownMax += step
      redraw()
      last?.nextElementSibling?.querySelector('a, button')?.focus()
    })
    list.after(h('p', { class: 'row center' }, list.more))
  }
  keyed(list, items.slice(0, list.shownMax), key, make, none)
  const left = items.length - list.shownMax
  list.more.parentElement.hidden = left <= 0
  if (left > 0) {
    setText(list.more, 'Show ' + Math.min(step, left) + ' more of ' + left)
    list.more.setAttribute('aria-label', list.more.textContent + ', ' + (list.getAttribute('aria-label') ?? ''))
  }
}

// soon makes a function that calls f once for all of its calls in a moment.
export function soon(f, ms = 60) {
  let due
  return () => { due ??= setTimeout(() => { due = undefined; f() }, ms) }
}

for (const id of ['told', 'alarm']) $(id).addEventListener('click', event => { event.target.textContent = '' })

let fading
// tell says what has happened, to eyes and screen readers.
export function tell(text) {
  $('told').textContent = text
  clearTimeout(fading)
  fading = setTimeout(() => { $('told').textContent = '' }, 6000)
}

let calming
// alarm says what went wrong: an Error of the API, or any other.
export function alarm(error) {
  if (error.name === 'AbortError') return
  $('alarm').textContent = error.message + (error.hint ? ' — ' + error.hint : '')
  clearTimeout(calming)
  calming = setTimeout(() => { $('alarm').textContent = '' }, 12000)
}

// act makes a listener that does work and tells its error. Meanwhile the button is busy: a
// disabled one would lose the focus.
export function act(work) {
  return async event => {
    event.preventDefault()
    const button = event.submitter ?? event.currentTarget
    if (button.getAttribute('aria-busy')) return
    button.setAttribute('aria-busy', 'true')
    try {
      await work(event)
    } catch (error) {
      alarm(error)
    }
    button.removeAttribute('aria-busy')
  }
}

export function button(text, label, work) {
  return h('button', { type: 'button', 'aria-label': label || undefined, onclick: act(work) }, text)
}

// opener leads to a content in the gateway, in a tab of its own that knows nothing of this
// one. What is not here yet is fetched as it is looked at.
export function opener(id, name, label) {
  const link = h('a', { class: 'button', target: '_blank', rel: 'noopener noreferrer' }, 'Open')
  open(link, id, name, label)
  return link
}

// open has an opener lead to another content.
export function open(link, id, name, label) {
  link.href = '/b3/' + encodeURIComponent(id.replace(/^b3:/, '')) + (name ? '?filename=' + encodeURIComponent(name) : '')
  link.setAttribute('aria-label', 'Open ' + label + ' in a new tab')
}

// show opens the dialog, or shows something else in it.
export function show(title, ...children) {
  const dialog = $('dialog')
  dialog.replaceChildren(h('h2', { id: 'dialog-h', tabindex: -1, autofocus: true }, h('bdi', {}, title)), ...children.flat().filter(Boolean),
    h('p', { class: 'end' }, h('button', { type: 'button', onclick: () => dialog.close() }, 'Close')))
  if (dialog.open) $('dialog-h').focus()
  else dialog.showModal()
  return dialog
}

// ask opens the dialog with a question, and tells whether it was answered with yes; with
// a field, or a select as one, what stands in it.
export function ask(title, text, yes, field, input = field && h('input', { name: 'answer', required: true, autocomplete: 'off' })) {
  return new Promise(resolve => {
    const dialog = $('dialog')
    const form = h('form', { method: 'dialog', class: 'row', onsubmit: () => { dialog.returnValue = 'yes' } },
      field && h('label', { class: 'grow' }, field, input),
      h('button', { class: 'main', value: 'yes' }, yes),
      h('button', { type: 'button', onclick: () => dialog.close('no') }, 'Cancel'))
    dialog.returnValue = 'no'
    dialog.replaceChildren(h('h2', { id: 'dialog-h' }, h('bdi', {}, title)), text && h('p', {}, text) || '', form)
    const closed = () => {
      if (dialog.open) return // told late of what it showed before
      dialog.removeEventListener('close', closed)
      resolve(dialog.returnValue === 'yes' ? input ? input.value : true : null)
    }
    dialog.addEventListener('close', closed)
    if (!dialog.open) dialog.showModal()
  })
}
