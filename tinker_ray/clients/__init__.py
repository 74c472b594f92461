"""The public clients under the upstream SDK's names: sync and async faces of one runtime."""
