"""A small job for tests: is a note good or bad?"""
