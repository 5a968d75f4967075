"""What makes new adapters: one operator, one file, one pure function, one source.

``operators`` is the table; ``breed`` goes from parents' folders to a child's folder and genome; ``finetune`` makes
founders and stands apart, because it needs the base.
"""
