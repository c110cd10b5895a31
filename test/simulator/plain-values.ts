/** Strings, hashes and sets of the in-memory Redis. */
export class StringValue {
  readonly kind = 'string'
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

export class HashValue {
  readonly kind = 'hash'
  readonly fields: Map<string, string> = new Map()
}

export class SetValue {
  readonly kind = 'set'
  readonly members: Set<string> = new Set()
}
