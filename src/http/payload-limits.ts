/**
 * What no payload may have, whatever its schema says: deep nesting, which would overflow the stack of whoever copies or
 * prints it, and keys that reach into an object's prototype.
 */
import { MillraceError, type PayloadIssue } from '../contracts/errors.ts'

export const DEPTH_MAX = 32

export function isForbiddenKey(key: string): boolean {
  return key === '__proto__' || key === 'constructor' || key === 'prototype'
}

/** @throws MillraceError `command.invalid` with the place as a JSON pointer */
export function checkPayload(payload: unknown): void {
  if (typeof payload !== 'object' || payload === null) return
  const issue = findIssue(payload, DEPTH_MAX)
  if (issue !== undefined) throw payloadRefusal({ pointer: `#${issue.pointer}`, detail: issue.detail })
}

export function payloadRefusal(issue: PayloadIssue): MillraceError {
  return new MillraceError('command.invalid', `The payload is refused: ${issue.pointer} ${issue.detail}`, {
    issues: [issue],
  })
}

/** The first issue, its pointer still without `#`; the pointer is put together on the way back, so that none costs nothing. */
function findIssue(value: object, depth: number): PayloadIssue | undefined {
  if (depth === 0) return { pointer: '', detail: `is nested deeper than ${DEPTH_MAX} levels` }
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const item: unknown = value[i]
      if (typeof item !== 'object' || item === null) continue
      const issue = findIssue(item, depth - 1)
      if (issue !== undefined) return within(String(i), issue)
    }
    return undefined
  }
  for (const key in value) {
    if (isForbiddenKey(key)) return { pointer: `/${key}`, detail: 'is a key that is not allowed' }
    const item: unknown = (value as Record<string, unknown>)[key]
    if (typeof item !== 'object' || item === null) continue
    const issue = findIssue(item, depth - 1)
    if (issue !== undefined) return within(key, issue)
  }
  return undefined
}

const POINTER_CHARS_MAX = 200

function within(key: string, issue: PayloadIssue): PayloadIssue {
  if (issue.pointer.length > POINTER_CHARS_MAX) return issue
  const part = key.slice(0, 80).replaceAll('~', '~0').replaceAll('/', '~1')
  return { pointer: `/${part}${issue.pointer}`, detail: issue.detail }
}
